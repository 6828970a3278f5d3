/*
 * One NBD connection: where a URI leads, the handshake of "newstyle" with NBD_OPT_GO, TLS where it is compiled in
 * (-DLEAN_TLS, -lgnutls), and bytes out and in. Names of constants are those of the NBD specification (proto.md).
 */
#ifndef LEAN_NBD_H
#define LEAN_NBD_H

#include <endian.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef LEAN_TLS
#include <gnutls/gnutls.h>
#endif

#define NBD_IHAVEOPT 0x49484156454f5054ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_OPT_STARTTLS 5u
#define NBD_OPT_GO 7u
#define NBD_REP_ACK 1u
#define NBD_REP_INFO 3u
#define NBD_INFO_EXPORT 0u
enum { NBD_CMD_READ = 0, NBD_CMD_WRITE = 1, NBD_CMD_DISC = 2, NBD_CMD_FLUSH = 3 };

struct __attribute__((packed)) nbd_request {
  uint32_t magic;
  uint16_t flags, type;
  uint64_t cookie, offset;
  uint32_t length;
};
struct __attribute__((packed)) nbd_reply { uint32_t magic, error; uint64_t cookie; };

/* Ends the program with a sentence. */
static void fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  fprintf(stderr, "lean_client: ");
  vfprintf(stderr, format, values);
  fprintf(stderr, "\n");
  va_end(values);
  exit(1);
}

struct channel {
  int fd;
  uint64_t size_bytes;
#ifdef LEAN_TLS
  gnutls_session_t tls; /* NULL without TLS */
#endif
};

struct place { char host[128], port[16], path[108], export_name[256]; bool is_unix, is_tls; };

/* nbd[s]://HOST:PORT/EXPORT or nbd[s]+unix:///EXPORT?socket=PATH; nothing in them is percent-encoded here. */
static struct place place_of(const char *uri) {
  struct place to = {0};
  to.is_tls = strncmp(uri, "nbds", 4) == 0;
  const char *rest = uri + (to.is_tls ? 4 : 3);
  if (strncmp(rest, "+unix:///", 9) == 0) {
    to.is_unix = true;
    const char *query = strstr(rest, "?socket=");
    if (query == NULL || strlen(query + 8) >= sizeof to.path) fail("%s: no ?socket=PATH of up to 107 bytes", uri);
    snprintf(to.export_name, sizeof to.export_name, "%.*s", (int)(query - rest - 9), rest + 9);
    snprintf(to.path, sizeof to.path, "%s", query + 8);
  } else if (sscanf(rest, "://%127[^:/]:%15[0-9]/%255s", to.host, to.port, to.export_name) < 2) {
    fail("%s: neither nbd://HOST:PORT/EXPORT nor nbd+unix:///EXPORT?socket=PATH", uri);
  }
  return to;
}

static int connected_socket(const struct place *to) {
  if (to->is_unix) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, to->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (void *)&address, sizeof address) != 0) fail("connect %s: %s", to->path, strerror(errno));
    return fd;
  }
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(to->host, to->port, &hints, &found) != 0) fail("%s: no such host", to->host);
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
    fail("connect %s:%s: %s", to->host, to->port, strerror(errno));
  }
  freeaddrinfo(found);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

/* As recv: bytes received, -1 and EAGAIN where none are there. The end of the stream ends the program. */
static ssize_t channel_receive(struct channel *from, void *to, size_t bytes, int flags) {
  ssize_t got;
#ifdef LEAN_TLS
  if (from->tls != NULL) {
    do got = gnutls_record_recv(from->tls, to, bytes);
    while (got == GNUTLS_E_INTERRUPTED || got == GNUTLS_E_AGAIN);
    if (got < 0) fail("TLS: %s", gnutls_strerror((int)got));
  } else
#endif
    got = recv(from->fd, to, bytes, flags);
  if (got == 0) fail("the server has closed the connection");
  if (got < 0 && errno != EAGAIN && errno != EINTR) fail("recv: %s", strerror(errno));
  return got;
}

/* As sendmsg without waiting; with TLS it waits, and sends all. */
static ssize_t channel_send(struct channel *to, struct iovec *parts, int count) {
#ifdef LEAN_TLS
  if (to->tls != NULL) {
    ssize_t bytes = 0;
    gnutls_record_cork(to->tls);
    for (int i = 0; i < count; i++) {
      for (size_t done = 0; done < parts[i].iov_len;) {
        ssize_t sent = gnutls_record_send(to->tls, (char *)parts[i].iov_base + done, parts[i].iov_len - done);
        if (sent < 0) fail("TLS: %s", gnutls_strerror((int)sent));
        done += (size_t)sent;
      }
      bytes += (ssize_t)parts[i].iov_len;
    }
    if (gnutls_record_uncork(to->tls, GNUTLS_RECORD_WAIT) < 0) fail("TLS: cannot send");
    return bytes;
  }
#endif
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
  ssize_t sent = sendmsg(to->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) fail("send: %s", strerror(errno));
  return sent < 0 ? 0 : sent;
}

static void receive_all(struct channel *from, void *to, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t got = channel_receive(from, (char *)to + done, bytes - done, 0);
    if (got > 0) done += (size_t)got;
  }
}

/* The handshake's messages are so short that a socket takes them whole. */
static void send_all(struct channel *to, const void *data, size_t bytes) {
  struct iovec part = {(void *)data, bytes};
  if (channel_send(to, &part, 1) != (ssize_t)bytes) fail("the server does not take the handshake");
}

static void send_option(struct channel *to, uint32_t option, const void *data, uint32_t bytes) {
  struct __attribute__((packed)) { uint64_t magic; uint32_t option, length; } head = {
    htobe64(NBD_IHAVEOPT), htobe32(option), htobe32(bytes)};
  send_all(to, &head, sizeof head);
  if (bytes > 0) send_all(to, data, bytes);
}

/* Reads replies to an option up to NBD_REP_ACK; keeps the size that NBD_INFO_EXPORT tells. */
static void await_ack(struct channel *from, const char *what) {
  for (;;) {
    struct __attribute__((packed)) { uint64_t magic; uint32_t option, type, length; } head;
    char data[4096];
    receive_all(from, &head, sizeof head);
    uint32_t length = be32toh(head.length), type = be32toh(head.type);
    if (length > sizeof data) fail("%s: a reply of %u bytes", what, length);
    receive_all(from, data, length);
    if (type == NBD_REP_ACK) return;
    if (type >> 31) fail("%s was refused with error 0x%x: %.*s", what, type, (int)length, data);
    if (type == NBD_REP_INFO && length >= 10 && data[0] == 0 && data[1] == NBD_INFO_EXPORT) {
      memcpy(&from->size_bytes, data + 2, 8);
      from->size_bytes = be64toh(from->size_bytes);
    }
  }
}

static void start_tls(struct channel *on) {
#ifdef LEAN_TLS
  static gnutls_certificate_credentials_t credentials; /* no certificates: the server's is not verified */
  if (credentials == NULL) gnutls_certificate_allocate_credentials(&credentials);
  send_option(on, NBD_OPT_STARTTLS, NULL, 0);
  await_ack(on, "NBD_OPT_STARTTLS");
  gnutls_session_t tls;
  gnutls_init(&tls, GNUTLS_CLIENT);
  gnutls_set_default_priority(tls);
  gnutls_credentials_set(tls, GNUTLS_CRD_CERTIFICATE, credentials);
  gnutls_transport_set_int(tls, on->fd);
  int result;
  do result = gnutls_handshake(tls);
  while (result < 0 && !gnutls_error_is_fatal(result));
  if (result < 0) fail("TLS handshake: %s", gnutls_strerror(result));
  on->tls = tls;
#else
  (void)on;
  fail("it was compiled without TLS");
#endif
}

/* Connects, and attaches to the export. */
static struct channel channel_open(const char *uri) {
  struct place to = place_of(uri);
  struct channel channel = {.fd = connected_socket(&to)};
  struct __attribute__((packed)) { uint64_t magic, option_magic; uint16_t flags; } greeting;
  receive_all(&channel, &greeting, sizeof greeting);
  if (be64toh(greeting.option_magic) != NBD_IHAVEOPT) fail("%s: no NBD server of the newstyle kind", uri);
  uint32_t flags = htobe32(be16toh(greeting.flags) & 3); /* fixed newstyle, no zeroes */
  send_all(&channel, &flags, sizeof flags);
  if (to.is_tls) start_tls(&channel);
  char wanted[sizeof to.export_name + 6];
  uint32_t name_bytes = (uint32_t)strlen(to.export_name), name_length = htobe32(name_bytes);
  memcpy(wanted, &name_length, 4);
  memcpy(wanted + 4, to.export_name, name_bytes);
  memset(wanted + 4 + name_bytes, 0, 2); /* asks for no information beyond the export's */
  send_option(&channel, NBD_OPT_GO, wanted, name_bytes + 6);
  await_ack(&channel, "NBD_OPT_GO");
  return channel;
}

#endif
