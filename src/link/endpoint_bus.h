/* link/endpoint_bus.h: shared by endpoint_bus.c and endpoint_offsets.c (groups' committed offsets) only. */
#ifndef BW_LINK_ENDPOINT_BUS_H
#define BW_LINK_ENDPOINT_BUS_H

#include "link/channel.h"
#include "link/endpoint.h"
#include "proto/json.h"

bw_channel *bw_bus_channel(bw_endpoint *ep);
bw_err bw_bus_offsets(bw_endpoint *ep, const bw_link_spec *spec, bw_group_offset **out, size_t *count, bw_deadline deadline);
bw_err bw_bus_commit(bw_endpoint *ep, const bw_group_offset *offsets, size_t count, bw_deadline deadline);

#endif
