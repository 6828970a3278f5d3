/** Something that may never happen: what a run ends with when it has found a fault of the product, or of the simulation. */
export class Violation extends Error {
  override readonly name = "Violation";
}
