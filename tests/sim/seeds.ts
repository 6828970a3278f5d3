/** The seeds that every test run goes through. */

/**
 * Seeds that have found something, and what; the sentence says what was wrong then. A seed means another run once the
 * simulator itself draws differently: look for a new one then, with the fault put back.
 */
export const seedsThatFound: readonly { readonly seed: number; readonly what: string }[] = [
  {
    seed: 124,
    what:
      "a kill in the midst of a commit, then a power cut: the superblock the pool was opened on was not durable, " +
      "but the catalogue had been compacted to it",
  },
  {
    seed: 100019,
    what:
      "a growth that clients saw before it was durable: a crash undid it, and the next growth showed what they had " +
      "written beyond the old end",
  },
  {
    seed: 604206,
    what:
      "nothing in the product: after a failed flush and a kill the simulated host showed bytes that it had not kept, and " +
      "a snapshot of them changed at the next power cut. The machine is now restarted after a failed flush",
  },
];

const freshSeeds = 400;

/** The fixed set. */
export function fixedSeeds(): number[] {
  const seeds = new Set(seedsThatFound.map(({ seed }) => seed));
  for (let seed = 1; seed <= freshSeeds; seed += 1) seeds.add(seed);
  return [...seeds];
}
