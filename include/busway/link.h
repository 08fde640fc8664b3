/* busway/link.h: links between daemons: a daemon copies topics from or to a peer, over any URL a bus may have, and goes on where it stopped.
 * All calls are synchronous, bounded by request_timeout_ms of the bus, and safe from any thread. JSON results are freed with bw_free. */
#ifndef BUSWAY_LINK_H
#define BUSWAY_LINK_H

#include <busway/admin.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Options (name and value, as in the configuration file's [link NAME] sections):
 *   url          of the peer: ipc://…, tcp://…, tls+tcp://…, dir:…
 *   topics       of the source: names and '^patterns', separated by commas; "alarms:10,^metrics\." : a higher priority goes first
 *   direction    pull (from the peer; default) | push
 *   mode         mirror: a read-only copy with equal offsets (default) | merge: into a topic that others write to, too; each record once, whichever
 *                way it came, with the header "busway.origin"
 *   prefix       of the target's name · rename: the target's name, of a link with one topic
 *   key-prefix   only records whose key begins so · header: NAME or NAME=VALUE: only records that have it
 *   rate         bytes a second on the wire, with K, M or G; 0: no limit
 *   compression  none | gzip | snappy | lz4 | zstd, on the wire
 *   configs      true: the topics' configuration travels · groups: names and '^patterns' whose committed offsets travel (mirrors)
 *   durable      true: only what is on the source's disk · paused: true | false
 *
 * bw_link_add: kept in the daemon's store when it returns; it then connects in the background: bw_link_describe says how that goes.
 * LINK_EXISTS, INVALID_ARGUMENT (says which option and what is allowed), UNSUPPORTED (the URL), NOT_PERMITTED. */
BW_API bw_err bw_link_add(bw_bus *bus, const char *link, const bw_config_entry *options, size_t option_count);
/* bw_link_alter: value NULL: the default. {"paused", "true"} stops it, {"paused", "false"} lets it go on. UNKNOWN_LINK, as above. */
BW_API bw_err bw_link_alter(bw_bus *bus, const char *link, const bw_config_entry *options, size_t option_count);
/* bw_link_remove: what was copied stays. A mirror stays a mirror. UNKNOWN_LINK. */
BW_API bw_err bw_link_remove(bw_bus *bus, const char *link);
/* bw_links_list: JSON array of {"name","url","direction","mode","state": "connecting" | "copying" | "up to date" | "paused" | "down" | "stopped",
 * "since_ms","static","error","message","peer_id","connects","partitions","stopped","lag_records","lag_bytes","lag_ms","records","bytes",
 * "wire_bytes","lost_records","options":{name: value}}.
 * bw_link_describe: one of them, with "parts": [{"topic","target","partition","priority","next_offset","end_offset","lag_records","lag_bytes",
 * "lag_ms","records","bytes","lost_records","error","message"}]. UNKNOWN_LINK. */
BW_API bw_err bw_links_list(bw_bus *bus, char **json);
BW_API bw_err bw_link_describe(bw_bus *bus, const char *link, char **json);

#ifdef __cplusplus
}
#endif

#endif
