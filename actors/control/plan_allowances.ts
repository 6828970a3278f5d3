/** Plans of `quota` and `reserve`, and what other plans do to the allowances of a volume. */
import type { VolumeRecord } from "../../storage/catalogue.ts";
import type { DeviceAllowance } from "../../storage/device_allowances.ts";
import type { ChangeCommand } from "./admin_command.ts";
import { problemOfSize, seeList } from "./plan_checks.ts";
import { draft, type PlanContext, type PlanDraft, refusedPlan } from "./plan_draft.ts";
import type { PlanRefused } from "./pool_messages.ts";

/** The allowances that the catalogue has for a volume, if any. */
export function allowancesOf({ thinId, quotaBytes, reserveBytes }: VolumeRecord): DeviceAllowance[] {
  if (quotaBytes === undefined && reserveBytes === undefined) return [];
  return [{ thin: thinId, quotaBytes, reserveBytes }];
}

/** What ends the allowances of the volume's device, because the volume is removed or gets another device; empty if it has none. */
export function endOfAllowances(record: VolumeRecord): DeviceAllowance[] {
  return allowancesOf(record).map(({ thin }) => ({ thin, quotaBytes: undefined, reserveBytes: undefined }));
}

/** Sets or ends the quota or the reserve of a volume. */
export function planAllowance(
  { catalogue }: PlanContext,
  command: Extract<ChangeCommand, { readonly verb: "quota" | "reserve" }>,
): PlanDraft | PlanRefused {
  const { verb, name } = command;
  const what = verb === "quota" ? `set the quota of "${name}"` : `reserve space for "${name}"`;
  const record = catalogue.byName(name);
  if (record === undefined) return refusedPlan(`Cannot ${what}: there is no such volume. ${seeList}`);
  if (record.readOnly) return refusedPlan(`Cannot ${what}: it is read-only and maps no new block. Clone it.`);
  const bytes = verb === "quota" ? command.quotaBytes : command.reserveBytes;
  const problem = bytes === null ? undefined : problemOfSize(bytes);
  if (problem !== undefined) return refusedPlan(`Cannot ${what}: ${problem}`);
  const { quotaBytes, reserveBytes, ...rest } = record;
  const quota = verb === "quota" ? bytes ?? undefined : quotaBytes;
  const reserve = verb === "reserve" ? bytes ?? undefined : reserveBytes;
  const changed = {
    ...rest,
    ...(quota === undefined ? {} : { quotaBytes: quota }),
    ...(reserve === undefined ? {} : { reserveBytes: reserve }),
  };
  return draft([{ put: changed }], {
    allowances: [{ thin: record.thinId, quotaBytes: quota, reserveBytes: reserve }],
  });
}
