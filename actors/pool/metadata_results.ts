/** How operations on the metadata end that have no more to say. */

import type { AllowanceRefusal } from "../../storage/device_allowances.ts";

/** The allowance of a thin device (storage/device_allowances.ts) leaves no block for it. */
export type AllowanceFailure = { readonly kind: AllowanceRefusal };

/** Why an operation was not done; it has changed nothing. `clockExhausted`: the 24-bit snapshot time is used up. */
export type MetadataFailure =
  | { readonly kind: "noMetadataSpace" }
  | { readonly kind: "clockExhausted" }
  | AllowanceFailure
  | { readonly kind: "damaged"; readonly reason: string }
  | { readonly kind: "readOnly" }
  | { readonly kind: "poolFailed" };

/** The operation was done. */
export type Done = { readonly kind: "done" };
