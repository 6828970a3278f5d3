/** How operations on the metadata end that have no more to say. */

import type { LimitRefusal } from "../../storage/device_limits.ts";

/** A limit of a thin device (storage/device_limits.ts) does not allow it. */
export type LimitFailure = { readonly kind: LimitRefusal };

/** Why an operation was not done; it has changed nothing. `clockExhausted`: the 24-bit snapshot time is used up. */
export type MetadataFailure =
  | { readonly kind: "noMetadataSpace" }
  | { readonly kind: "clockExhausted" }
  | LimitFailure
  | { readonly kind: "damaged"; readonly reason: string }
  | { readonly kind: "readOnly" }
  | { readonly kind: "poolFailed" };

/** The operation was done. */
export type Done = { readonly kind: "done" };
