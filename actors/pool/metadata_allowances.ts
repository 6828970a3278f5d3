/** The messages of metadata that are about the allowances of thin devices. */
import { unreachable } from "../../storage/base/assert.ts";
import type { ThinMetadata } from "../../storage/thin_metadata.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { AllowanceMessage } from "./allowance_messages.ts";
import type { DataRetired } from "./metadata_messages.ts";
import { mappedBlocksOf } from "./metadata_reads.ts";

/** Serves the message in this turn: none of them needs a block that may not be in memory. */
export function serveAllowances(
  kernel: Kernel,
  engine: ThinMetadata,
  message: AllowanceMessage | DataRetired,
): void {
  const { allowances } = engine;
  switch (message.type) {
    case "askRoom": {
      const mappedBlocks = mappedBlocksOf(engine, message.thin);
      return kernel.reply(message, allowances.roomOf(message.thin, mappedBlocks));
    }
    case "dataRetired":
      allowances.retiredBlocks = message.blocks;
      return;
    case "setAllowances":
      return allowances.set(message.allowances);
    case "beginCount":
      return allowances.beginCount(message.thins);
    case "endCount":
      return allowances.endCount(message.counted);
    case "cancelCount":
      return allowances.cancelCount(message.thins);
    case "dropUnused":
      return allowances.dropUnused(message.thins);
    default:
      return unreachable(message);
  }
}
