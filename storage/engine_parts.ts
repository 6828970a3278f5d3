/** The parts of the metadata engine, made for one superblock and wired to each other; thin_metadata.ts says what they do together. */
import { BlockCache } from "./block_cache.ts";
import { DeviceAllowances } from "./device_allowances.ts";
import { DeviceTable } from "./device_table.ts";
import type { Superblock } from "./format/superblock.ts";
import { Growth } from "./growth.ts";
import { MappingRuns } from "./mapping_runs.ts";
import { MetadataCommit } from "./metadata_commit.ts";
import { MetadataHeadroom } from "./metadata_headroom.ts";
import { MetadataOperation } from "./metadata_operation.ts";
import { MetadataSpaceLoad } from "./metadata_space_load.ts";
import { DataSpaceMap } from "./space_map_data.ts";
import { MetadataSpaceLayout } from "./space_map_layout.ts";
import { MetadataSpaceMap } from "./space_map_metadata.ts";
import { SuperblockState } from "./superblock_state.ts";
import { ThinMappings } from "./thin_mappings.ts";
import { Transaction } from "./transaction.ts";

/** See the head of this file. */
export class EngineParts {
  readonly superblock: SuperblockState;
  readonly transaction: Transaction;
  readonly layout: MetadataSpaceLayout;
  readonly headroom: MetadataHeadroom;
  readonly spaceLoad: MetadataSpaceLoad;
  readonly data: DataSpaceMap;
  readonly allowances: DeviceAllowances;
  readonly devices: DeviceTable;
  readonly mappings: ThinMappings;
  readonly runs: MappingRuns;
  readonly operation: MetadataOperation;
  readonly growth: Growth;
  readonly commit: MetadataCommit;

  constructor(superblock: Superblock, bytes: Uint8Array, cacheBlocks: number, readOnly: boolean) {
    this.superblock = new SuperblockState(superblock, bytes);
    const space = new MetadataSpaceMap(superblock.metadataSpaceMap.blocks);
    this.transaction = new Transaction(new BlockCache(cacheBlocks), space);
    this.layout = new MetadataSpaceLayout(this.transaction);
    this.headroom = new MetadataHeadroom(space, this.layout);
    this.spaceLoad = new MetadataSpaceLoad(this.transaction, superblock.metadataSpaceMap);
    this.data = new DataSpaceMap(this.transaction, superblock.dataSpaceMap);
    this.allowances = new DeviceAllowances(this.superblock.geometry.blockSizeBytes, this.data);
    this.devices = new DeviceTable(this.transaction, superblock.mappingRoot, superblock.detailsRoot);
    this.mappings = new ThinMappings(this.transaction, this.data, !readOnly, superblock.heldRoot !== 0);
    this.runs = new MappingRuns(this.transaction, this.devices);
    this.operation = new MetadataOperation(this);
    this.growth = new Growth({ space, headroom: this.headroom, data: this.data, operation: this.operation });
    this.commit = new MetadataCommit({ ...this, recentlyUnshared: this.mappings.recentlyUnshared });
  }
}
