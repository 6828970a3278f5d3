/** The bounds of the NBD codec alone. What the NBD specification fixes is in constants.ts, all other bounds in actors/limits.ts. */
import { metaContextQueriesMax, requestBytesMax } from "../../limits.ts";
import { stringMaxBytes } from "./constants.ts";

/** Longest WRITE payload that is read and thrown away to keep the stream in step; above it the connection ends. */
export const payloadDrainMaxBytes = 2 * requestBytesMax;
/** Longest option that is read and thrown away; above it the connection ends. */
export const optionDrainMaxBytes = 1024 * 1024;
/** Longest INFO or GO that is collected: the longest name and some 30,000 info types. */
export const infoCollectMaxBytes = 64 * 1024;
/** Longest meta context option that is collected: a name and as many queries as may be, all of the longest kind. */
export const metaContextCollectMaxBytes = 4 + (1 + metaContextQueriesMax) * (4 + stringMaxBytes);

/** A rest of a payload that is received by itself: copying less than this costs less than a system call. */
export const inPlaceMinBytes = 32 * 1024;
/**
 * A payload of at least this many bytes is queued by reference: copying it would cost more than a system call.
 * A shorter one is copied at once, and its buffer is free again.
 */
export const referenceMinBytes = 64 * 1024;
