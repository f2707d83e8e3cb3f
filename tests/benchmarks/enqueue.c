/*
 * What enqueue costs where nothing is checked: lines into the tables of a state file that nura has made, by SQLite alone. Keys go
 * in as text, as files of the earlier layout have them: in their order, which is cheaper than hashes in levels.
 *
 * Usage: enqueue STATE LINES NAME [MEMBER]
 *
 * Splits the lines, takes the text between quotes behind "NAME": as the key, keeps what stands behind "MEMBER": up to the line's
 * last brace (without MEMBER the line itself), digests the line, and inserts keys, tasks, records and counts, 10,000 lines to a
 * transaction, each commit on the disk. Workload 1 and lane 1 are there already. Exits 1 on anything unexpected.
 */
#define _GNU_SOURCE
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHUNK_LINES = 10000 };

static sqlite3 *db;

static void check(int done, const char *what)
{
    if (!done) {
        fprintf(stderr, "%s: %s\n", what, sqlite3_errmsg(db));
        exit(1);
    }
}

static void run(const char *sql)
{
    check(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, sql);
}

static sqlite3_stmt *prepared(const char *sql)
{
    sqlite3_stmt *statement;
    check(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) == SQLITE_OK, sql);
    return statement;
}

static void step(sqlite3_stmt *statement)
{
    check(sqlite3_step(statement) == SQLITE_DONE, sqlite3_sql(statement));
    sqlite3_reset(statement);
}

/* Sixteen bytes that depend on all of a line: two FNV-1a sums over words of eight bytes. */
static void digest(const char *line, size_t size, uint64_t sum[2])
{
    sum[0] = 0xcbf29ce484222325u, sum[1] = 0x84222325cbf29ce4u ^ size;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = 0;
        memcpy(&word, line + at, size - at < 8 ? size - at : 8);
        sum[0] = (sum[0] ^ word) * 0x100000001b3u;
        sum[1] = (sum[1] ^ (word >> 32 | word << 32)) * 0x100000001b3u;
    }
}

/* Where what stands behind "name": begins. */
static const char *behind(const char *line, size_t size, const char *name)
{
    char quoted[64];
    int length = snprintf(quoted, sizeof quoted, "\"%s\": ", name);
    const char *found = memmem(line, size, quoted, length);
    check(found != NULL, name);
    return found + length;
}

int main(int argc, char **argv)
{
    check(argc >= 4, "usage: enqueue STATE LINES NAME [MEMBER]");
    FILE *lines = fopen(argv[2], "rb");
    check(lines != NULL, argv[2]);
    check(sqlite3_open(argv[1], &db) == SQLITE_OK, argv[1]);
    run("PRAGMA synchronous = FULL; PRAGMA cache_size = -32000; PRAGMA wal_autocheckpoint = 2000");
    sqlite3_stmt *key = prepared("INSERT INTO keys (workload_id, key, task_id, digest) VALUES (1, ?, ?, ?)");
    sqlite3_stmt *task = prepared("INSERT INTO tasks (id, lane_id, status) VALUES (?, 1, 'pending')");
    sqlite3_stmt *record = prepared("INSERT INTO records (task_id, enqueued_at, key, line) VALUES (?, ?, ?, ?)");
    sqlite3_stmt *count = prepared(
        "INSERT INTO counts (lane_id, status, superseded, n) VALUES (1, 'pending', 0, ?1)"
        " ON CONFLICT DO UPDATE SET n = n + ?1");
    char *line = NULL;
    size_t room = 0;
    ssize_t got;
    sqlite3_int64 id = 0, in_chunk = 0, now = time(NULL);
    while ((got = getline(&line, &room, lines)) > 0) {
        size_t size = got - (line[got - 1] == '\n');
        const char *from = behind(line, size, argv[3]);
        const char *to = memchr(from + 1, '"', line + size - from - 1);
        check(*from == '"' && to != NULL, "no key");
        const char *keep = argc > 4 ? behind(line, size, argv[4]) : line;
        size_t kept = line + size - keep - (argc > 4);
        uint64_t sum[2];
        digest(line, size, sum);
        if (in_chunk == 0)
            run("BEGIN IMMEDIATE");
        id++;
        sqlite3_bind_text(key, 1, from + 1, to - from - 1, SQLITE_STATIC);
        sqlite3_bind_int64(key, 2, id);
        sqlite3_bind_blob(key, 3, sum, sizeof sum, SQLITE_STATIC);
        step(key);
        sqlite3_bind_int64(task, 1, id);
        step(task);
        sqlite3_bind_int64(record, 1, id);
        sqlite3_bind_int64(record, 2, now);
        sqlite3_bind_text(record, 3, from, to + 1 - from, SQLITE_STATIC);
        sqlite3_bind_blob(record, 4, keep, kept, SQLITE_STATIC);
        step(record);
        if (++in_chunk == CHUNK_LINES) {
            sqlite3_bind_int64(count, 1, in_chunk);
            step(count);
            run("COMMIT");
            in_chunk = 0;
        }
    }
    if (in_chunk) {
        sqlite3_bind_int64(count, 1, in_chunk);
        step(count);
        run("COMMIT");
    }
    check(!ferror(lines), argv[2]);
    for (sqlite3_stmt *one; (one = sqlite3_next_stmt(db, NULL));)
        sqlite3_finalize(one);
    check(sqlite3_close(db) == SQLITE_OK, "close");
    return 0;
}
