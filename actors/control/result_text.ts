/** The results of commands as text for people. */
import { formatSize } from "../../storage/base/sizes.ts";
import type { PoolStatus, VolumeListing } from "./admin_command.ts";

/** Volumes and snapshots as `list` prints them: a heading, and a line for each. */
export function tableOf(volumes: readonly VolumeListing[]): string {
  const rows = [["NAME", "SIZE", "MAPPED", "EXCLUSIVE", "ORIGIN", "CREATED"]];
  for (const volume of volumes) {
    rows.push([
      volume.name,
      formatSize(volume.size_bytes),
      formatSize(volume.mapped_bytes),
      formatSize(volume.exclusive_bytes),
      volume.origin ?? "-",
      volume.created?.replace(/\.\d+Z$/, "Z") ?? "-",
    ]);
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()).join(
    "\n",
  );
}

/** The pool as `status` prints it. */
export function statusText(status: PoolStatus): string {
  const used = (part: number, whole: number) => `${formatSize(part)} of ${formatSize(whole)} used`;
  const lines = [
    `mode         ${status.mode}`,
    `data         ${used(status.data_used_bytes, status.data_total_bytes)}, blocks of ${
      formatSize(status.block_size_bytes)
    }`,
    `metadata     ${used(status.metadata_used_bytes, status.metadata_total_bytes)}`,
    `volumes      ${status.volumes}, snapshots among them; ${status.attached} clients attached`,
    `transaction  ${status.transaction_id}`,
  ];
  if (status.trouble !== null) lines.push(`trouble      ${status.trouble}`);
  return lines.join("\n");
}
