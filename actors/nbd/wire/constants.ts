/**
 * The numbers of the NBD protocol under the names its specification gives them (NetworkBlockDevice/nbd,
 * doc/proto), and functions that turn a number back into its name for logs.
 * Every integer on the wire is big-endian and unsigned; 64-bit magics stand here as two 32-bit halves.
 */

/** "NBDM", "AGIC": the first eight bytes a server sends. */
export const NBDMAGIC_HIGH = 0x4e42_444d;
export const NBDMAGIC_LOW = 0x4147_4943;
/** "IHAV", "EOPT": the next eight bytes from the server, and the first eight of each option. */
export const IHAVEOPT_HIGH = 0x4948_4156;
export const IHAVEOPT_LOW = 0x454f_5054;
/** The first eight bytes of each option reply. */
export const NBD_REP_MAGIC_HIGH = 0x0003_e889;
export const NBD_REP_MAGIC_LOW = 0x0455_65a9;

/** The first four bytes of requests and of replies. */
export const NBD_REQUEST_MAGIC = 0x2560_9513;
export const NBD_SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e_33ef;
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e4_1c71;
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a_278c;

// Handshake flags (server) and client flags.
export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_NO_ZEROES = 1 << 1;
export const NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_C_NO_ZEROES = 1 << 1;

// Options.
export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
export const NBD_OPT_PEEK_EXPORT = 4;
export const NBD_OPT_STARTTLS = 5;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;
export const NBD_OPT_LIST_META_CONTEXT = 9;
export const NBD_OPT_SET_META_CONTEXT = 10;
export const NBD_OPT_EXTENDED_HEADERS = 11;

/** The options that this server understands. Each has an entry in every table with these keys, or it does not compile. */
export type ServedOption =
  | typeof NBD_OPT_EXPORT_NAME
  | typeof NBD_OPT_ABORT
  | typeof NBD_OPT_LIST
  | typeof NBD_OPT_STARTTLS
  | typeof NBD_OPT_INFO
  | typeof NBD_OPT_GO
  | typeof NBD_OPT_STRUCTURED_REPLY
  | typeof NBD_OPT_LIST_META_CONTEXT
  | typeof NBD_OPT_SET_META_CONTEXT
  | typeof NBD_OPT_EXTENDED_HEADERS;

// Option reply types; bit 31 marks an error.
export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
export const NBD_REP_META_CONTEXT = 4;
export const NBD_REP_ERR_UNSUP = 0x8000_0001;
export const NBD_REP_ERR_POLICY = 0x8000_0002;
export const NBD_REP_ERR_INVALID = 0x8000_0003;
export const NBD_REP_ERR_PLATFORM = 0x8000_0004;
export const NBD_REP_ERR_TLS_REQD = 0x8000_0005;
export const NBD_REP_ERR_UNKNOWN = 0x8000_0006;
export const NBD_REP_ERR_SHUTDOWN = 0x8000_0007;
export const NBD_REP_ERR_BLOCK_SIZE_REQD = 0x8000_0008;
export const NBD_REP_ERR_TOO_BIG = 0x8000_0009;
export const NBD_REP_ERR_EXT_HEADER_REQD = 0x8000_000a;

// Info types of NBD_OPT_INFO and NBD_OPT_GO.
export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_DESCRIPTION = 2;
export const NBD_INFO_BLOCK_SIZE = 3;

// Transmission flags of an export, 16 bits.
export const NBD_FLAG_HAS_FLAGS = 1 << 0;
export const NBD_FLAG_READ_ONLY = 1 << 1;
export const NBD_FLAG_SEND_FLUSH = 1 << 2;
export const NBD_FLAG_SEND_FUA = 1 << 3;
export const NBD_FLAG_ROTATIONAL = 1 << 4;
export const NBD_FLAG_SEND_TRIM = 1 << 5;
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6;
export const NBD_FLAG_SEND_DF = 1 << 7;
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8;
export const NBD_FLAG_SEND_RESIZE = 1 << 9;
export const NBD_FLAG_SEND_CACHE = 1 << 10;
export const NBD_FLAG_SEND_FAST_ZERO = 1 << 11;
export const NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12;

// Commands.
export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
export const NBD_CMD_CACHE = 5;
export const NBD_CMD_WRITE_ZEROES = 6;
export const NBD_CMD_BLOCK_STATUS = 7;
export const NBD_CMD_RESIZE = 8;

// Command flags, 16 bits.
export const NBD_CMD_FLAG_FUA = 1 << 0;
export const NBD_CMD_FLAG_NO_HOLE = 1 << 1;
export const NBD_CMD_FLAG_DF = 1 << 2;
export const NBD_CMD_FLAG_REQ_ONE = 1 << 3;
export const NBD_CMD_FLAG_FAST_ZERO = 1 << 4;
export const NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5;

// Structured reply chunks: the flag of the last chunk, and the types (bit 15 marks an error).
export const NBD_REPLY_FLAG_DONE = 1 << 0;
export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_OFFSET_HOLE = 2;
export const NBD_REPLY_TYPE_BLOCK_STATUS = 5;
export const NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6;
export const NBD_REPLY_TYPE_ERROR = 0x8001;
export const NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002;

// Error values of replies: Linux errno numbers, the only ones the specification allows.
export const NBD_EPERM = 1;
export const NBD_EIO = 5;
export const NBD_ENOMEM = 12;
export const NBD_EINVAL = 22;
export const NBD_ENOSPC = 28;
export const NBD_EOVERFLOW = 75;
export const NBD_ENOTSUP = 95;
export const NBD_ESHUTDOWN = 108;

/** An error value of a reply; 0 stands for success and is not one. */
export type NbdErrno =
  | typeof NBD_EPERM
  | typeof NBD_EIO
  | typeof NBD_ENOMEM
  | typeof NBD_EINVAL
  | typeof NBD_ENOSPC
  | typeof NBD_EOVERFLOW
  | typeof NBD_ENOTSUP
  | typeof NBD_ESHUTDOWN;

/** Longest legal string (name, description, error text, context name, query), in bytes. */
export const stringMaxBytes = 4096;

const optionCodeNames = namesOf({
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_LIST,
  NBD_OPT_PEEK_EXPORT,
  NBD_OPT_STARTTLS,
  NBD_OPT_INFO,
  NBD_OPT_GO,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_EXTENDED_HEADERS,
});

const optionReplyNames = namesOf({
  NBD_REP_ACK,
  NBD_REP_SERVER,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_ERR_UNSUP,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_PLATFORM,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_BLOCK_SIZE_REQD,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_EXT_HEADER_REQD,
});

const commandNames = namesOf({
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_TRIM,
  NBD_CMD_CACHE,
  NBD_CMD_WRITE_ZEROES,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_RESIZE,
});

const errorNames = namesOf({
  NBD_EPERM,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_ENOTSUP,
  NBD_ESHUTDOWN,
});

/** `NBD_OPT_GO` for 7; the number in hex for one the specification does not know. */
export function optionName(option: number): string {
  return nameIn(optionCodeNames, option);
}

/** `NBD_REP_ACK` for 1. */
export function optionReplyName(replyType: number): string {
  return nameIn(optionReplyNames, replyType);
}

/** `NBD_CMD_READ` for 0. */
export function commandName(command: number): string {
  return nameIn(commandNames, command);
}

/** `NBD_EINVAL` for 22. */
export function errorName(error: number): string {
  return nameIn(errorNames, error);
}

function namesOf(constants: Record<string, number>): ReadonlyMap<number, string> {
  return new Map(Object.entries(constants).map(([name, value]) => [value, name]));
}

function nameIn(names: ReadonlyMap<number, string>, value: number): string {
  return names.get(value) ?? `0x${value.toString(16)}`;
}
