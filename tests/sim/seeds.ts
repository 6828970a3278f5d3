/** The seeds that every test run goes through. */

/** Seeds that have found something, and what; the sentence says what was wrong then. */
export const seedsThatFound: readonly { readonly seed: number; readonly what: string }[] = [
  {
    seed: 6,
    what:
      "a kill in the midst of a commit, then a power cut: the superblock the pool was opened on was not durable, " +
      "but the catalogue had been compacted to it",
  },
];

const freshSeeds = 400;

/** The fixed set. */
export function fixedSeeds(): number[] {
  const seeds = new Set(seedsThatFound.map(({ seed }) => seed));
  for (let seed = 1; seed <= freshSeeds; seed += 1) seeds.add(seed);
  return [...seeds];
}
