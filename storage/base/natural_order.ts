/** The order in which names are listed: `vm-2` before `vm-10`, and a volume's snapshots directly behind it. */

/**
 * A text for each name; sorted by these texts, the names have their natural order. A run of digits is compared as a number,
 * whatever its length. Names that differ only in leading zeros are in the order of their characters.
 */
export function naturalKey(name: string): string {
  const key = name
    // A longer run of digits is a larger number. A name has at most 255 characters, so one character holds its length.
    .replace(/\d+/g, (digits) => {
      const significant = digits.replace(/^0+(?=\d)/, "");
      return `0${String.fromCharCode(significant.length)}${significant}`;
    })
    // Lower than every character of a name: "a@s" before "a-b".
    .replace("@", "\u0000");
  return `${key}\u0000\u0000${name}`;
}
