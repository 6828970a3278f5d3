/*
 * A load generator for NBD that costs the machine little: raw requests in batches, 0.5 to 1.5 us of CPU for a request
 * where fio takes 6 to 9, which on a machine of two cores hides what the server costs.
 *
 *   cc -O2 -pthread -o lean_client lean_client.c [-DLEAN_TLS -lgnutls]
 *   lean_client [OPTION...] URI...      prints one line of JSON
 *   lean_client --drop FILE...          writes the files back, drops their pages, prints what is still cached
 *   lean_client --cached FILE...        prints how much of the files is cached
 *
 * A slot is one request under way; a connection has as many as its depth. All of a slot's requests are of one kind:
 * read, write, or a write and then a flush, which count as one. Each worker thread drives its connections by epoll; a
 * connection that is alone in its worker waits in recv, which saves a system call. With --once each block is met at
 * most once, in random order or, with --sequential, in theirs; it ends then, or by --seconds.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <time.h>
#include "lean_histogram.h"
#include "lean_nbd.h"
#include "lean_process.h"

#define DEPTH_MAX 256
#define CONNECTIONS_MAX 64
#define SERVERS_MAX 64
#define RECEIVE_BYTES (256 * 1024)
/* A server that answers nothing for so long after the end has failed. */
#define LATE_SECONDS 60

enum kind { KIND_READ, KIND_WRITE, KIND_WRITE_FLUSH };

static struct {
  enum kind kind;
  int depth, connections, cpu;
  uint32_t request_bytes;
  uint64_t from_bytes, span_bytes, seed;
  double seconds, warm_seconds;
  bool has_threads, is_once, is_sequential;
} wanted = {.depth = 1, .cpu = -1, .request_bytes = 4096, .seed = 1};

static uint64_t measured_from_ns, measured_to_ns;
static char *payload;

struct slot { struct nbd_request request; uint64_t begin_ns; bool is_flushing; };

struct connection {
  struct channel channel;
  struct slot slots[DEPTH_MAX];
  int under_way;
  /* What is to be sent: headers of slots, and the payload. A slot has two parts at most. */
  struct iovec parts[4 * DEPTH_MAX];
  int part_first, part_end;
  char *received;
  size_t received_bytes;
  /* Bytes of a read's data that are still to come, and its slot. */
  size_t skip_bytes;
  int skip_slot;
  uint64_t random, next_block, blocks;
  uint32_t *order; /* with --once and without --sequential: every block, shuffled */
  struct histogram histogram;
  uint64_t last_ns;
};

struct worker { pthread_t thread; struct connection **connections; int count; };

static uint64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* xorshift64 */
static uint64_t random_of(struct connection *of) {
  of->random ^= of->random << 13;
  of->random ^= of->random >> 7;
  of->random ^= of->random << 17;
  return of->random;
}

static uint64_t next_block(struct connection *of) {
  if (!wanted.is_once && !wanted.is_sequential) return random_of(of) % of->blocks;
  uint64_t at = of->next_block++ % of->blocks;
  return of->order != NULL ? of->order[at] : at;
}

static void queue(struct connection *on, void *data, size_t bytes) {
  if (on->part_end == 4 * DEPTH_MAX) {
    on->part_end -= on->part_first;
    memmove(on->parts, on->parts + on->part_first, (size_t)on->part_end * sizeof *on->parts);
    on->part_first = 0;
  }
  on->parts[on->part_end++] = (struct iovec){data, bytes};
}

/* Queues a slot's next request; none when the time is over or, with --once, every block was met. */
static void issue(struct connection *on, int at, uint64_t now) {
  if (now >= measured_to_ns || (wanted.is_once && on->next_block == on->blocks)) return;
  struct slot *slot = &on->slots[at];
  bool is_write = wanted.kind != KIND_READ;
  slot->request = (struct nbd_request){
    .magic = htobe32(NBD_REQUEST_MAGIC),
    .type = htobe16(is_write ? NBD_CMD_WRITE : NBD_CMD_READ),
    .cookie = (uint64_t)at,
    .offset = htobe64(wanted.from_bytes + next_block(on) * wanted.request_bytes),
    .length = htobe32(wanted.request_bytes),
  };
  slot->begin_ns = now;
  slot->is_flushing = false;
  on->under_way++;
  queue(on, &slot->request, sizeof slot->request);
  if (is_write) queue(on, payload, wanted.request_bytes);
}

/* An answer to a slot's request has come whole. */
static void answered(struct connection *on, int at, uint64_t now) {
  struct slot *slot = &on->slots[at];
  if (wanted.kind == KIND_WRITE_FLUSH && !slot->is_flushing) {
    slot->is_flushing = true;
    slot->request.type = htobe16(NBD_CMD_FLUSH);
    slot->request.offset = 0;
    slot->request.length = 0;
    queue(on, &slot->request, sizeof slot->request);
    return;
  }
  on->under_way--;
  if (now >= measured_from_ns && now < measured_to_ns) {
    histogram_add(&on->histogram, now - slot->begin_ns);
    on->last_ns = now;
  }
  issue(on, at, now);
}

static void send_queued(struct connection *on) {
  while (on->part_first < on->part_end) {
    ssize_t sent = channel_send(&on->channel, on->parts + on->part_first, on->part_end - on->part_first);
    if (sent == 0) return;
    while (sent > 0) {
      struct iovec *part = &on->parts[on->part_first];
      if ((size_t)sent < part->iov_len) {
        part->iov_base = (char *)part->iov_base + sent;
        part->iov_len -= (size_t)sent;
        break;
      }
      sent -= (ssize_t)part->iov_len;
      on->part_first++;
    }
  }
  on->part_first = on->part_end = 0;
}

/* Takes what has come; its answers are dealt with together, and what they bring about is sent together. */
static void receive(struct connection *on, int flags) {
  ssize_t got = channel_receive(
    &on->channel, on->received + on->received_bytes, RECEIVE_BYTES - on->received_bytes, flags);
  if (got < 0) return;
  size_t at = 0, end = on->received_bytes + (size_t)got;
  uint64_t now = now_ns();
  for (;;) {
    if (on->skip_bytes > 0) {
      size_t here = end - at < on->skip_bytes ? end - at : on->skip_bytes;
      at += here;
      on->skip_bytes -= here;
      if (on->skip_bytes > 0) break;
      answered(on, on->skip_slot, now);
      continue;
    }
    struct nbd_reply reply;
    if (end - at < sizeof reply) break;
    memcpy(&reply, on->received + at, sizeof reply);
    at += sizeof reply;
    if (be32toh(reply.magic) != NBD_SIMPLE_REPLY_MAGIC) fail("a reply begins with 0x%x", be32toh(reply.magic));
    if (reply.error != 0) fail("a request failed with error %u", be32toh(reply.error));
    if (reply.cookie >= (uint64_t)wanted.depth) fail("a reply to no request");
    if (wanted.kind == KIND_READ) {
      on->skip_bytes = wanted.request_bytes;
      on->skip_slot = (int)reply.cookie;
    } else answered(on, (int)reply.cookie, now);
  }
  on->received_bytes = end - at;
  memmove(on->received, on->received + at, on->received_bytes);
  send_queued(on);
}

static int under_way(const struct worker *of) {
  int sum = 0;
  for (int i = 0; i < of->count; i++) sum += of->connections[i]->under_way;
  return sum;
}

static void *work(void *argument) {
  struct worker *self = argument;
  int poll = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < self->count; i++) {
    struct connection *each = self->connections[i];
    struct epoll_event event = {EPOLLIN, {.ptr = each}};
    epoll_ctl(poll, EPOLL_CTL_ADD, each->channel.fd, &event);
    for (int slot = 0; slot < wanted.depth; slot++) issue(each, slot, now_ns());
    send_queued(each);
  }
  while (under_way(self) > 0) {
    struct connection *alone = self->count == 1 ? self->connections[0] : NULL;
    if (alone != NULL && alone->part_first == alone->part_end) {
      receive(alone, 0);
      continue;
    }
    bool has_queued = false;
    for (int i = 0; i < self->count; i++) {
      struct connection *each = self->connections[i];
      if (each->part_first == each->part_end) continue;
      send_queued(each);
      if (each->part_first < each->part_end) has_queued = true;
    }
    struct epoll_event events[CONNECTIONS_MAX];
    /* A socket that takes no more is tried again at once, or after a millisecond without answers. */
    int count = epoll_wait(poll, events, CONNECTIONS_MAX, has_queued ? 1 : 1000);
    for (int i = 0; i < count; i++) receive(events[i].data.ptr, MSG_DONTWAIT);
  }
  close(poll);
  return NULL;
}

static void prepare(struct connection *new, const char *uri, int index) {
  new->channel = channel_open(uri);
  uint64_t size = new->channel.size_bytes;
  uint64_t span = wanted.span_bytes == 0 ? size - wanted.from_bytes : wanted.span_bytes;
  if (wanted.from_bytes > size || span > size - wanted.from_bytes) fail("%s has only %lu bytes", uri, size);
  new->blocks = span / wanted.request_bytes;
  if (new->blocks == 0) fail("%s is smaller than one request", uri);
  new->received = malloc(RECEIVE_BYTES);
  new->random = (wanted.seed * 64 + (uint64_t)index + 1) * 0x9e3779b97f4a7c15ull;
  if (!wanted.is_once || wanted.is_sequential) return;
  new->order = malloc(new->blocks * sizeof *new->order);
  for (uint64_t i = 0; i < new->blocks; i++) {
    uint64_t other = random_of(new) % (i + 1); /* Fisher and Yates, inside out */
    new->order[i] = new->order[other];
    new->order[other] = (uint32_t)i;
  }
}

/* Runs the workers; main only looks at clocks: the servers' CPU at the window's begin and end. */
static void run(struct connection *all, struct worker *workers, int count, const int *servers, int server_count) {
  struct cpu_times begin, end;
  uint64_t start = now_ns();
  measured_from_ns = start + (uint64_t)(wanted.warm_seconds * 1e9);
  bool is_timed = wanted.seconds > 0;
  measured_to_ns = is_timed ? measured_from_ns + (uint64_t)(wanted.seconds * 1e9) : UINT64_MAX;
  if (is_timed) alarm((unsigned)(wanted.warm_seconds + wanted.seconds) + LATE_SECONDS);
  begin = cpu_times(servers, server_count);
  for (int i = 0; i < count; i++) pthread_create(&workers[i].thread, NULL, work, &workers[i]);
  if (is_timed) {
    sleep_until(measured_from_ns);
    begin = cpu_times(servers, server_count);
    sleep_until(measured_to_ns);
    end = cpu_times(servers, server_count);
  }
  for (int i = 0; i < count; i++) pthread_join(workers[i].thread, NULL);
  uint64_t last = 0;
  for (int i = 0; i < wanted.connections; i++) if (all[i].last_ns > last) last = all[i].last_ns;
  if (!is_timed) end = cpu_times(servers, server_count);
  /* With --once it may be over before its time. */
  double seconds = wanted.is_once && last > measured_from_ns ? (double)(last - measured_from_ns) / 1e9 : wanted.seconds;
  struct histogram *sum = calloc(1, sizeof *sum);
  double least = 1e18, most = 0;
  for (int i = 0; i < wanted.connections; i++) {
    double rate = (double)all[i].histogram.count / seconds;
    least = rate < least ? rate : least;
    most = rate > most ? rate : most;
    histogram_merge(sum, &all[i].histogram);
  }
  if (sum->count == 0) fail("no request was answered in %.3f s", seconds);
  double requests = (double)sum->count;
  printf("{\"requests\":%lu,\"seconds\":%.6f,\"requests_per_second\":%.1f,\"bytes_per_second\":%.0f,"
    "\"server_cpu_us\":%.3f,\"client_cpu_us\":%.3f,\"mean_us\":%.2f,\"p50_us\":%.2f,\"p99_us\":%.2f,"
    "\"p999_us\":%.2f,\"max_us\":%.2f,\"min_per_second\":%.1f,\"max_per_second\":%.1f,\"fairness\":%.4f}\n",
    sum->count, seconds, requests / seconds, requests * wanted.request_bytes / seconds,
    (end.servers_us - begin.servers_us) / requests, (end.client_us - begin.client_us) / requests,
    (double)sum->sum_ns / requests / 1000, percentile_us(sum, 0.5), percentile_us(sum, 0.99),
    percentile_us(sum, 0.999), (double)sum->max_ns / 1000, least, most, most > 0 ? least / most : 0);
}

static const struct option options[] = {
  {"mode", 1, 0, 'm'}, {"depth", 1, 0, 'd'}, {"bytes", 1, 0, 'b'}, {"connections", 1, 0, 'c'},
  {"threads", 0, 0, 't'}, {"cpu", 1, 0, 'p'}, {"seconds", 1, 0, 's'}, {"warm", 1, 0, 'w'},
  {"from", 1, 0, 'f'}, {"span", 1, 0, 'z'}, {"seed", 1, 0, 'r'}, {"once", 0, 0, 'o'},
  {"sequential", 0, 0, 'q'}, {"server", 1, 0, 'P'}, {"drop", 0, 0, 'D'}, {"cached", 0, 0, 'C'}, {0}};

static const char usage[] =
  "usage: lean_client [--mode read|write|flush] [--depth N] [--bytes N] [--connections N] [--threads] [--cpu N]\n"
  "         [--seconds S] [--warm S] [--from BYTES] [--span BYTES] [--seed N] [--once] [--sequential]\n"
  "         [--server PID]... URI...\n"
  "       lean_client --drop FILE...\n"
  "       lean_client --cached FILE...\n";

static enum kind kind_of(const char *mode) {
  if (strcmp(mode, "read") == 0) return KIND_READ;
  if (strcmp(mode, "write") == 0) return KIND_WRITE;
  if (strcmp(mode, "flush") == 0) return KIND_WRITE_FLUSH;
  fail("--mode takes read, write or flush, not \"%s\"", mode);
  return KIND_READ;
}

int main(int count, char **words) {
  int servers[SERVERS_MAX], server_count = 0, found;
  while ((found = getopt_long(count, words, "", options, NULL)) >= 0) {
    switch (found) {
      case 'm': wanted.kind = kind_of(optarg); break;
      case 'd': wanted.depth = atoi(optarg); break;
      case 'b': wanted.request_bytes = (uint32_t)atoll(optarg); break;
      case 'c': wanted.connections = atoi(optarg); break;
      case 't': wanted.has_threads = true; break;
      case 'p': wanted.cpu = atoi(optarg); break;
      case 's': wanted.seconds = atof(optarg); break;
      case 'w': wanted.warm_seconds = atof(optarg); break;
      case 'f': wanted.from_bytes = (uint64_t)atoll(optarg); break;
      case 'z': wanted.span_bytes = (uint64_t)atoll(optarg); break;
      case 'r': wanted.seed = (uint64_t)atoll(optarg); break;
      case 'o': wanted.is_once = true; break;
      case 'q': wanted.is_sequential = true; break;
      case 'P': if (server_count < SERVERS_MAX) servers[server_count++] = atoi(optarg); break;
      case 'D': case 'C': return print_cached(words + optind, found == 'D');
      default: fputs(usage, stderr); return 2;
    }
  }
  int uris = count - optind;
  if (wanted.connections < uris) wanted.connections = uris;
  bool is_sane = uris > 0 && wanted.connections <= CONNECTIONS_MAX && wanted.depth >= 1 && wanted.depth <= DEPTH_MAX &&
    wanted.request_bytes > 0 && wanted.seconds >= 0;
  if (wanted.seconds == 0 && !wanted.is_once) wanted.seconds = 1;
  /* What TLS has decoded and not given out shows in no epoll. */
  if (is_sane && strncmp(words[optind], "nbds", 4) == 0) wanted.has_threads = true;
  if (!is_sane) return fputs(usage, stderr), 2;
  if (wanted.cpu >= 0) pin_to(wanted.cpu);
  payload = malloc(wanted.request_bytes);
  struct connection *all = calloc((size_t)wanted.connections, sizeof *all);
  for (uint32_t i = 0; i < wanted.request_bytes; i++) payload[i] = (char)(i * 7 + i / 4096 + 1);
  for (int i = 0; i < wanted.connections; i++) prepare(&all[i], words[optind + i % uris], i);
  struct connection *pointers[CONNECTIONS_MAX];
  struct worker workers[CONNECTIONS_MAX];
  for (int i = 0; i < wanted.connections; i++) {
    pointers[i] = &all[i];
    workers[i] = (struct worker){.connections = &pointers[i], .count = 1};
  }
  if (!wanted.has_threads) workers[0].count = wanted.connections;
  run(all, workers, wanted.has_threads ? wanted.connections : 1, servers, server_count);
  for (int i = 0; i < wanted.connections; i++) {
    struct nbd_request last = {.magic = htobe32(NBD_REQUEST_MAGIC), .type = htobe16(NBD_CMD_DISC)};
    send_all(&all[i].channel, &last, sizeof last);
    close(all[i].channel.fd);
  }
  return 0;
}
