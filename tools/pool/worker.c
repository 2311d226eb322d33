/*
 * worker.c - one worker process: HTTP in, charge_start(), HTTP out.
 *
 * Owns: its listening socket (SO_REUSEPORT, so that the kernel spreads new connections over the workers), its event loop,
 * its handle of the store.
 * Routes: POST /charges (headers Idempotency-Key; optional Tenant, Prefer: wait=SECONDS, X-Request-Start), GET /health.
 * Stop: SIGTERM closes the listening socket, lets running charges end (bounded by STOP_LIMIT_MS), and leaves.
 * If we die here: the kernel closes our sockets, clients see a reset; claims and ledger as charge.c says. If the
 * supervisor dies, the kernel kills us: nobody would count or restart us any more.
 */
#include "charge.h"
#include "options.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG        256
#define IDLE_LIMIT_S   60
#define STOP_LIMIT_MS  8000
#define STOP_POLL_MS   20
#define MAINTAIN_MS    1000
#define MAINTAIN_US    500
#define HEADERS_MAX    16384
#define WAIT_MAX_S     30
#define DEFAULT_TENANT "default"

struct server {
    struct worker w;
    struct evhttp *http;
    struct evhttp_bound_socket *listener;
    struct event *on_term;
    struct event *maintain;
    struct event *stop_poll;
    int stop_polls;
};

/* Where an answer goes. The request is gone when its connection is. */
struct recipient {
    struct evhttp_request *req;
};

/* ------------------------------------------------------------------ answers */

static const char *reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 409:
        return "Conflict";
    case 422:
        return "Unprocessable Content";
    default:
        return "Service Unavailable";
    }
}

static void send_answer(struct evhttp_request *req, const charge_answer *a)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    struct evbuffer *body = evbuffer_new();
    char seconds[16];
    if (body == NULL || (a->body_bytes > 0 && evbuffer_add(body, a->body, a->body_bytes) != 0)) {
        if (body != NULL)
            evbuffer_free(body);
        evhttp_send_error(req, 503, NULL);
        return;
    }
    evhttp_add_header(headers, "Content-Type", "application/json");
    if (a->replayed)
        evhttp_add_header(headers, "Idempotent-Replayed", "true");
    if (a->retry_after_s > 0) {
        snprintf(seconds, sizeof(seconds), "%u", a->retry_after_s);
        evhttp_add_header(headers, "Retry-After", seconds);
    }
    evhttp_send_reply(req, a->status, reason_of(a->status), body);
    evbuffer_free(body);
}

static void refuse(struct evhttp_request *req, int status, const char *why)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "error", json_object_new_string(why));
    charge_answer a = {.status = status};
    a.body = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &a.body_bytes);
    send_answer(req, &a);
    json_object_put(o);
}

static void on_gone(struct evhttp_connection *connection, void *arg)
{
    struct recipient *to = arg;
    (void)connection;
    to->req = NULL;
}

static void on_answer(void *ctx, const charge_answer *answer)
{
    struct recipient *to = ctx;
    if (to->req != NULL) {
        evhttp_connection_set_closecb(evhttp_request_get_connection(to->req), NULL, NULL);
        send_answer(to->req, answer);
    }
    free(to);
}

/* ------------------------------------------------------------------ requests */

/* The value without blanks around it and, as the Idempotency-Key draft writes it, without its quotes. */
static bool key_of(const char *value, char key[LEDGER_KEY_MAX + 1])
{
    size_t n;
    value += strspn(value, " \t");
    n = strlen(value);
    while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'))
        n--;
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
        value++;
        n -= 2;
    }
    if (n > LEDGER_KEY_MAX)
        return false;
    memcpy(key, value, n);
    key[n] = '\0';
    return ledger_key_ok(key) != 0;
}

/* "Prefer: wait=N" (RFC 7240) in milliseconds, or -1. */
static int64_t preferred_wait_ms(const char *prefer)
{
    char *end;
    if (prefer == NULL || strncasecmp(prefer, "wait=", 5) != 0 || !isdigit((unsigned char)prefer[5]))
        return -1;
    long s = strtol(prefer + 5, &end, 10);
    if (*end != '\0' || s < 0)
        return -1;
    return (s < WAIT_MAX_S ? s : WAIT_MAX_S) * INT64_C(1000);
}

/* "X-Request-Start: SECONDS.MMM", as gateways write it when a request reaches them, in milliseconds; 0: not known. */
static int64_t request_start_ms(const char *value)
{
    char *end;
    if (value == NULL || !isdigit((unsigned char)value[0]))
        return 0;
    long long s = strtoll(value, &end, 10);
    if (s > INT32_MAX * INT64_C(16) || strlen(end) != 4 || end[0] != '.' || strspn(end + 1, "0123456789") != 3)
        return 0;
    return (int64_t)s * 1000 + strtol(end + 1, NULL, 10);
}

static void post_charge(struct server *sv, struct evhttp_request *req, const char *path)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(req);
    struct evbuffer *in = evhttp_request_get_input_buffer(req);
    const char *key_header = evhttp_find_header(headers, "Idempotency-Key");
    const char *tenant = evhttp_find_header(headers, "Tenant");
    char key[LEDGER_KEY_MAX + 1];
    char why[200];
    order what;
    if (key_header == NULL) {
        refuse(req, 400, "header Idempotency-Key is missing: choose one for each order and keep it for its retries");
        return;
    }
    if (!key_of(key_header, key)) {
        refuse(req, 400, "header Idempotency-Key must be 1 to 64 printable ASCII characters without \" and \\");
        return;
    }
    if (tenant != NULL && !ledger_tenant_ok(tenant)) {
        refuse(req, 400, "header Tenant must be 1 to 32 letters, digits, '.', '_' or '-'");
        return;
    }
    size_t n = evbuffer_get_length(in);
    const char *body = (const char *)evbuffer_pullup(in, -1);
    struct json_object *parsed = order_parse(n > 0 ? body : "", n, &what, why, sizeof(why));
    if (parsed == NULL) {
        refuse(req, 400, why);
        return;
    }
    json_object_put(parsed);
    struct recipient *to = calloc(1, sizeof(*to));
    if (to == NULL) {
        refuse(req, 503, "out of memory");
        return;
    }
    to->req = req;
    evhttp_connection_set_closecb(evhttp_request_get_connection(req), on_gone, to);
    charge_request ask = {.tenant = tenant != NULL ? tenant : DEFAULT_TENANT,
                          .key = key,
                          .what = &what,
                          .method = "POST",
                          .path = path,
                          .body = body,
                          .body_bytes = n,
                          .started_wall_ms = request_start_ms(evhttp_find_header(headers, "X-Request-Start")),
                          .wait_ms = preferred_wait_ms(evhttp_find_header(headers, "Prefer"))};
    charge_start(&sv->w, &ask, on_answer, to);
}

static void on_request(struct evhttp_request *req, void *arg)
{
    struct server *sv = arg;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    enum evhttp_cmd_type method = evhttp_request_get_command(req);
    if (path != NULL && strcmp(path, "/charges") == 0) {
        if (method == EVHTTP_REQ_POST)
            post_charge(sv, req, path);
        else
            refuse(req, 405, "use POST");
    } else if (path != NULL && strcmp(path, "/health") == 0 && method == EVHTTP_REQ_GET) {
        charge_answer a = {.status = 200, .body = "{}", .body_bytes = 2};
        send_answer(req, &a);
    } else {
        refuse(req, 404, "there is POST /charges and GET /health");
    }
}

/* ------------------------------------------------------------------ start and stop */

static void on_maintain(evutil_socket_t fd, short what, void *arg)
{
    struct server *sv = arg;
    (void)fd;
    (void)what;
    idem_maintain(sv->w.store, MAINTAIN_US);
}

static void on_stop_poll(evutil_socket_t fd, short what, void *arg)
{
    struct server *sv = arg;
    (void)fd;
    (void)what;
    if (sv->w.running == 0 || sv->stop_polls++ > STOP_LIMIT_MS / STOP_POLL_MS)
        event_base_loopexit(sv->w.base, NULL);
}

static void on_term(evutil_socket_t fd, short what, void *arg)
{
    struct server *sv = arg;
    struct timeval tv = span_ms(STOP_POLL_MS);
    (void)fd;
    (void)what;
    if (sv->listener != NULL)
        evhttp_del_accept_socket(sv->http, sv->listener);
    sv->listener = NULL;
    event_add(sv->stop_poll, &tv);
}

static int listen_on(uint16_t port)
{
    int on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 &&
        bind(fd, (const struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    fprintf(stderr, "worker %d: port %u on 127.0.0.1: %s\n", (int)getpid(), port, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool open_store(struct server *sv)
{
    idem_options o = IDEM_OPTIONS_INIT;
    if (sv->w.options->no_idem)
        return true;
    int got = idem_open(sv->w.options->store_dir, &o, &sv->w.store);
    if (got == IDEM_OK)
        return true;
    fprintf(stderr, "worker %d: store %s: %s (%s)\n", (int)getpid(), sv->w.options->store_dir, idem_strerror(got),
            idem_error_detail());
    return false;
}

/* Everything that serving needs; what it makes is taken down by tear_down(), also after a failure. */
static bool set_up(struct server *sv)
{
    struct timeval often = span_ms(MAINTAIN_MS);
    sv->w.counts = tally_open(sv->w.options->tally_path, false);
    sv->w.ledger_fd = ledger_open(sv->w.options->ledger_path);
    if (sv->w.counts == NULL || sv->w.ledger_fd < 0 || !open_store(sv))
        return false;
    int fd = listen_on(sv->w.options->port);
    if (fd < 0)
        return false;
    sv->w.base = event_base_new();
    sv->http = sv->w.base != NULL ? evhttp_new(sv->w.base) : NULL;
    sv->listener = sv->http != NULL ? evhttp_accept_socket_with_handle(sv->http, fd) : NULL;
    if (sv->listener == NULL) {
        close(fd);
        return false;
    }
    evhttp_set_allowed_methods(sv->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST);
    evhttp_set_max_body_size(sv->http, ORDER_BODY_MAX);
    evhttp_set_max_headers_size(sv->http, HEADERS_MAX);
    evhttp_set_timeout(sv->http, IDLE_LIMIT_S);
    evhttp_set_gencb(sv->http, on_request, sv);
    sv->on_term = evsignal_new(sv->w.base, SIGTERM, on_term, sv);
    sv->stop_poll = event_new(sv->w.base, -1, EV_PERSIST, on_stop_poll, sv);
    sv->maintain = event_new(sv->w.base, -1, EV_PERSIST, on_maintain, sv);
    if (sv->on_term == NULL || sv->stop_poll == NULL || sv->maintain == NULL || event_add(sv->on_term, NULL) != 0)
        return false;
    return sv->w.store == NULL || event_add(sv->maintain, &often) == 0;
}

static void tear_down(struct server *sv)
{
    if (sv->http != NULL)
        evhttp_free(sv->http);
    if (sv->on_term != NULL)
        event_free(sv->on_term);
    if (sv->stop_poll != NULL)
        event_free(sv->stop_poll);
    if (sv->maintain != NULL)
        event_free(sv->maintain);
    idem_close(sv->w.store);
    if (sv->w.base != NULL)
        event_base_free(sv->w.base);
    if (sv->w.ledger_fd >= 0)
        close(sv->w.ledger_fd);
    tally_close(sv->w.counts);
}

int worker_run(const pool_options *options, unsigned slot, uint64_t spawn)
{
    struct server sv = {.w = {.options = options, .slot = slot, .ledger_fd = -1}};
    uint64_t dice = options->seed * UINT64_C(0x9e3779b97f4a7c15) + spawn * UINT64_C(0xbf58476d1ce4e5b9);
    for (int i = 0; i < 3; i++)
        sv.w.dice[i] = (unsigned short)(dice >> (16 * i + 16));
    bool ok = set_up(&sv) && event_base_dispatch(sv.w.base) == 0;
    if (!ok)
        fprintf(stderr, "worker %d: cannot serve\n", (int)getpid());
    tear_down(&sv);
    return ok ? 0 : 1;
}
