/** The operations of the metadata actor that change nothing: what each reads from the engine. */
import { geometryOf } from "../../storage/base/geometry.ts";
import { unreachable } from "../../storage/base/assert.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import { type Mapping, MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type {
  AskFacts,
  AskRuns,
  Facts,
  FindFree,
  Load,
  Lookup,
  LookupAtOnce,
  LookupRange,
} from "./metadata_messages.ts";
import type { AskDevice, AskGrowth, DeviceFacts, ListThins } from "./thin_device_messages.ts";
import type { AskDeviceStates } from "./commit_messages.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { IntentState } from "./intent_journal.ts";
import type { Done } from "./metadata_results.ts";

/** An operation that changes nothing. It is served also after the pool has stopped writing. */
export type ReadOperation = Lookup | LookupRange | AskRuns | FindFree | AskDevice | Load;

/** The one answer to an operation that has no result, so that none is allocated. */
export const metadataDone: Done = { kind: "done" };

/** The answer to a read. Throws MetadataFault: "missing" for a block that must be read first, "damaged". */
export function executeRead(engine: ThinMetadata, operation: ReadOperation): unknown {
  switch (operation.type) {
    case "lookup":
      return engine.allowances.isEmpty
        ? engine.lookup(operation.thin, operation.vblock)
        : lookupWithin(engine, operation);
    case "lookupRange":
      return {
        kind: "range",
        ...engine.lookupRange(operation.thin, operation.begin, operation.end, operation.runsMax),
      };
    case "askRuns":
      return mappedRunsOf(engine, operation);
    case "findFree":
      return { kind: "free", ...engine.findFreeData(operation.from, operation.blocksWanted) };
    case "device":
      return deviceFacts(engine, operation);
    case "load":
      engine.load();
      return metadataDone;
    default:
      return unreachable(operation);
  }
}

/** A question that is answered in its turn, because none of it needs a block that may not be in memory. */
export type FactsMessage = LookupAtOnce | AskFacts | AskGrowth | ListThins | AskDeviceStates;

/** Answers the question from what is in memory. */
export function serveFacts(
  kernel: Kernel,
  engine: ThinMetadata,
  intents: IntentState,
  message: FactsMessage,
): void {
  switch (message.type) {
    case "lookupAtOnce":
      lookUpAtOnce(engine, message);
      return kernel.reply(message, "answered");
    case "facts":
      return kernel.reply(message, metadataFactsOf(engine, intents));
    case "askGrowth":
      return kernel.reply(message, engine.growth.refusal(message.wanted) ?? { kind: "possible" });
    case "listThins":
      return kernel.reply(message, engine.thinIds());
    case "deviceStates":
      return kernel.reply(message, message.thins.map((thin) => engine.deviceState(thin)));
    default:
      return unreachable(message);
  }
}

/**
 * Sets the mapping of each block whose metadata blocks are all in memory. Such a look-up evicts none, so it goes on
 * beside an operation that runs alone. What is damaged is found and told when the block is looked up alone.
 */
function lookUpAtOnce(engine: ThinMetadata, { thin, wanted }: LookupAtOnce): void {
  for (const block of wanted) {
    try {
      block.mapping = engine.lookup(thin, block.vblock);
    } catch (error) {
      if (!(error instanceof MetadataFault)) throw error;
    }
  }
}

/** A write learns before it takes a data block that it may have none: a block that is given back would wake what waits for one. */
function lookupWithin(engine: ThinMetadata, { thin, vblock }: Lookup): Mapping {
  const mapping = engine.lookup(thin, vblock);
  if (mapping.kind === "provisioned" && !mapping.shared) return mapping;
  const refusal = engine.allowances.refusalOf(
    thin,
    mappedBlocksOf(engine, thin),
    mapping.kind === "unprovisioned",
  );
  return refusal === undefined ? mapping : { ...mapping, refusal };
}

/** The blocks that a device maps. */
export function mappedBlocksOf(engine: ThinMetadata, thin: ThinId): number {
  return engine.device(thin)?.mappedBlocks ?? 0;
}

function mappedRunsOf(engine: ThinMetadata, question: AskRuns): NonNullable<AskRuns["reply"]> {
  const { thin, other } = question;
  const runs = other === undefined
    ? engine.runs.mapped(thin, question)
    : engine.runs.differing(thin, other, question);
  return runs === undefined ? { kind: "noDevice" } : { kind: "runs", runs };
}

function deviceFacts(engine: ThinMetadata, { thin }: AskDevice): DeviceFacts {
  const device = engine.device(thin);
  if (device === undefined) return { kind: "noDevice" };
  return { kind: "device", mappedBlocks: device.mappedBlocks, highest: engine.highestMapped(thin) };
}

/** The sizes of the pool and what is free: bad data blocks do not count as free. */
function metadataFactsOf(engine: ThinMetadata, intents: IntentState): Facts {
  return {
    kind: "facts",
    transactionId: engine.transactionId,
    geometry: geometryOf({
      blockSizeBytes: engine.geometry.blockSizeBytes,
      dataBlocks: engine.dataBlocks,
      metadataBlocks: engine.metadataBlocks,
    }),
    dataFree: Math.max(0, engine.dataFree - engine.allowances.retiredBlocks),
    dataOwed: engine.allowances.owedBlocks,
    metadataAvailable: engine.metadataAvailable,
    dirtyBlocks: engine.dirtyBlocks,
    clock: engine.time,
    intents,
  };
}
