/*
 * tests/multi/wal_weather.h - the disk of a simulated machine, and its bad days: calls that fail, or do half; and what is left when the power goes.
 *
 * Owns: a table of calls over the one that records (support/wal_disk.h): now and then it lets one fail, by the world's one stream of chance.
 */
#ifndef TESTS_MULTI_WAL_WEATHER_H
#define TESTS_MULTI_WAL_WEATHER_H

#include "multi/wal_days.h"
#include "support/wal_disk.h"

static struct wal_disk *disk;

enum on { ON_OPEN = 1, ON_WRITE = 2, ON_SYNC = 4, ON_SPACE = 8, ON_NAME = 16, ON_READ = 32, ON_ALL = 63 };

static const struct trouble {
    unsigned on;
    int error;
} troubles[] = {
    {ON_WRITE, EIO},
    {ON_WRITE | ON_SPACE, ENOSPC},
    {ON_SYNC, EIO},
    {ON_SYNC, EIO},
    {ON_SYNC | ON_SPACE, ENOSPC},
    {ON_OPEN, EMFILE},
    {ON_NAME, EIO},
    {ON_READ, EIO},
    {ON_ALL, EIO},
};

/* One trouble at a time; it goes by itself. Shared by all processes, as the disk is. */
static struct weather {
    struct trouble trouble;
    unsigned left, odds;
} * weather;

static struct idem_io_calls below, above;

static void strike(enum on on)
{
    if (!world->bad)
        return;
    if (weather->left > 0 && (weather->trouble.on & on) != 0 && chance(weather->odds) == 0) {
        weather->left--;
        world->strikes++;
        world->totals.strikes++;
        wal_record_fail_call(1, weather->trouble.error, false);
    } else if (on == ON_WRITE && chance(4) == 0) {
        wal_record_fail_call(1, WAL_SHORT, false);
    }
}
static int d_open_at(int dir, const char *name, int flags, mode_t mode)
{
    strike(ON_OPEN);
    return below.open_at(dir, name, flags, mode);
}
static ssize_t d_pwrite(int fd, const void *from, size_t n, off_t at)
{
    strike(ON_WRITE);
    return below.pwrite(fd, from, n, at);
}
static ssize_t d_pread(int fd, void *to, size_t n, off_t at)
{
    strike(ON_READ);
    return below.pread(fd, to, n, at);
}
static int d_fdatasync(int fd)
{
    strike(ON_SYNC);
    return below.fdatasync(fd);
}
static int d_fsync(int fd)
{
    strike(ON_SYNC);
    return below.fsync(fd);
}
static int d_fallocate(int fd, off_t bytes)
{
    strike(ON_SPACE);
    return below.fallocate(fd, bytes);
}
static int d_rename_at(int dir, const char *from, const char *to)
{
    strike(ON_NAME);
    return below.rename_at(dir, from, to);
}
static int d_replace_at(int dir, const char *from, const char *to)
{
    strike(ON_NAME);
    return below.replace_at(dir, from, to);
}
static int d_unlink_at(int dir, const char *name)
{
    strike(ON_NAME);
    return below.unlink_at(dir, name);
}

static void begin_disk(const char *from)
{
    disk = wal_disk_new(from);
    wal_record_begin(world->log, WAL_HONEST);
    above = below = *idem_io;
    above.open_at = d_open_at;
    above.pwrite = d_pwrite;
    above.pread = d_pread;
    above.fdatasync = d_fdatasync;
    above.fsync = d_fsync;
    above.fallocate = d_fallocate;
    above.rename_at = d_rename_at;
    above.replace_at = d_replace_at;
    above.unlink_at = d_unlink_at;
    idem_io = &above;
}

static void some_weather(void)
{
    weather->trouble = troubles[chance(sizeof troubles / sizeof troubles[0])];
    weather->left = 1 + (unsigned)chance(12);
    weather->odds = 1 + (unsigned)chance(4);
}

/* What the disk may hold after a crash now takes the log's place. */
static void lose_power(void)
{
    static const enum wal_keep ways[][2] = {
        {WAL_LOST, WAL_LOST}, {WAL_SOME, WAL_TORN}, {WAL_KEPT, WAL_LOST}, {WAL_KEPT, WAL_SOME}, {WAL_KEPT, WAL_KEPT}};
    const enum wal_keep *way = ways[chance(sizeof ways / sizeof ways[0])];
    wal_record_end();
    wal_disk_follow(disk);
    CHECK(wal_disk_image(disk, world->image, way[0], way[1], &world->random));
    wal_disk_free(disk);
    support_remove(world->log);
    support_remove(world->store);
    CHECK_IS(rename(world->image, world->log), 0);
    begin_disk(world->log);
    world->totals.crashes++;
}

#endif
