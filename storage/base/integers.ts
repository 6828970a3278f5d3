/** Whether numbers that came from outside are the integers they are to be. */

/** True if it is an integer that a number holds exactly, from `min` to `max`. */
export function isInteger(value: number, min: number, max: number = Number.MAX_SAFE_INTEGER): boolean {
  return Number.isSafeInteger(value) && value >= min && value <= max;
}
