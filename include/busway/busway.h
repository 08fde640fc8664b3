/* busway/busway.h: everything. See each header for its role. */
#ifndef BUSWAY_BUSWAY_H
#define BUSWAY_BUSWAY_H
#include <busway/admin.h>
#include <busway/bus.h>
#include <busway/consumer.h>
#include <busway/error.h>
#include <busway/group.h>
#include <busway/link.h>
#include <busway/inspect.h>
#include <busway/producer.h>
#include <busway/queue.h>
#include <busway/record.h>
#include <busway/replica.h>
#include <busway/transaction.h>
#include <busway/state.h>
#include <busway/user.h>
#include <busway/version.h>
#endif
