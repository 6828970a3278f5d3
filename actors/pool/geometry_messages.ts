/**
 * How the geometry of a pool travels.
 *
 * Metadata owns it: the superblock of the last durable commit is the truth. It tells the pool of it after loading, and after
 * each commit that made the pool larger. The pool tells the others (control/pool_geometry.ts has the order). Clients, commands
 * and the allocator wait for the first such message; metadata and the devices work before it, as loading needs them. A later one
 * is never smaller.
 */
import type { Geometry } from "../../storage/base/geometry.ts";
import type { Message } from "../kernel/address.ts";

/** From metadata to the pool, and from the pool to the allocator: the pool has these sizes, durably. */
export interface GeometryNotice extends Message {
  readonly type: "geometry";
  readonly geometry: Geometry;
}

/** From the pool to a device: the pool uses so many bytes of it, from its begin. The device has them. */
export interface DeviceGeometry extends Message {
  readonly type: "deviceGeometry";
  readonly usedBytes: number;
}
