/** The paths of a pool directory. Apart from pool_files.ts, so that what only asks a server does not load that. */

/** The pool directory, and the paths of what it holds besides the devices: each begins with `directory`. */
export interface PoolPaths {
  /** As the user named it. */
  readonly directory: string;
  readonly catalogue: string;
  /**
   * The second copy of the catalogue, into which it is also rewritten, and a second name of the old one while the two are
   * swapped.
   */
  readonly secondCatalogue: string;
  readonly catalogueMoved: string;
  /** Exists while the pool is being made, and after a crash in between. */
  readonly unfinished: string;
  /** What a killed process leaves behind (storage/FORMAT.md, "The intent journal"). */
  readonly intents: string;
  readonly controlSocket: string;
  readonly nbdSocket: string;
}

/** The paths of a pool directory. */
export function poolPaths(directory: string): PoolPaths {
  return {
    directory,
    catalogue: pathIn(directory, "catalog.json"),
    secondCatalogue: pathIn(directory, "catalog.spare"),
    catalogueMoved: pathIn(directory, "catalog.moved"),
    unfinished: pathIn(directory, "unfinished.json"),
    intents: pathIn(directory, "intent.journal"),
    controlSocket: pathIn(directory, "control.sock"),
    nbdSocket: pathIn(directory, "nbd.sock"),
  };
}

/** A path of the settings as one to open: absolute ones as they are, others in the pool directory. */
export function pathIn(directory: string, path: string): string {
  if (path.startsWith("/")) return path;
  return directory.endsWith("/") ? `${directory}${path}` : `${directory}/${path}`;
}
