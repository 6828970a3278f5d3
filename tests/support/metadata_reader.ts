/** Runs the generators that read metadata over an image held in memory. */
import { checkMetadata, type CheckReport } from "../../storage/check.ts";
import { type DumpEnd, dumpMetadata } from "../../storage/dump.ts";
import { type MetadataBlock, metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { deviceUsage, type UsageOptions, type UsageResult } from "../../storage/usage.ts";

/** One buffer for every block read, as a caller of the generators is allowed to have. */
class ImageReader {
  readonly #buffer = new Uint8Array(metadataBlockSizeBytes);
  reads = 0;

  constructor(readonly image: Uint8Array, readonly unreadable: ReadonlySet<number>) {}

  read(block: MetadataBlock): Uint8Array | undefined {
    this.reads++;
    const begin = block * metadataBlockSizeBytes;
    if (begin + metadataBlockSizeBytes > this.image.length || this.unreadable.has(block)) return undefined;
    this.#buffer.set(this.image.subarray(begin, begin + metadataBlockSizeBytes));
    return this.#buffer;
  }
}

const none: ReadonlySet<number> = new Set();

/** Checks an image whose blocks in `unreadable` fail to read. */
export function checkImage(image: Uint8Array, unreadable = none): CheckReport & { readonly reads: number } {
  const reader = new ImageReader(image, unreadable);
  const reading = checkMetadata({ deviceBlocks: Math.floor(image.length / metadataBlockSizeBytes) });
  let step = reading.next();
  while (step.done !== true) step = reading.next(reader.read(step.value));
  return { ...step.value, reads: reader.reads };
}

/** Dumps an image: how it ended and the text up to there. */
export function dumpImage(
  image: Uint8Array,
  unreadable = none,
): { readonly end: DumpEnd; readonly text: string } {
  const reader = new ImageReader(image, unreadable);
  const dumping = dumpMetadata();
  let text = "";
  let step = dumping.next();
  while (step.done !== true) {
    if (step.value.kind === "text") {
      text += step.value.text;
      step = dumping.next();
    } else {
      step = dumping.next(reader.read(step.value.block));
    }
  }
  return { end: step.value, text };
}

/** Computes the usage of every device of an image. */
export function usageOfImage(image: Uint8Array, options: UsageOptions = {}, unreadable = none): UsageResult {
  const reader = new ImageReader(image, unreadable);
  const reading = deviceUsage(options);
  let step = reading.next();
  while (step.done !== true) step = reading.next(reader.read(step.value));
  return step.value;
}

/** Usage as `thin_ls --no-headers -o DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS` prints it, columns one space apart. */
export function usageLines(usage: UsageResult): string[] {
  if (usage.kind === "damaged") return [usage.sentence];
  return usage.devices.map((device) => `${device.thinId} ${device.mappedBlocks} ${device.exclusiveBlocks}`);
}
