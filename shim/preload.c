/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libflexins-preload.so: gives unmodified verbs programs the FlexiNS device. Every exported function of libibverbs
 * that takes an object is defined here: FlexiNS's objects go to libflexins, others to the real library. What verbs
 * programs call through an object never comes by.
 *
 * Room: shim. May use: host's public header, libc. Nothing but translation.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flexins/flexins.h"
#include "shim.h"
#include "verbs.def.h"

/* The standard header makes macros of these. */
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define EXPORT __attribute__((visibility("default")))

/* Private exports, which the public header does not declare. */
int ibv_query_gid_type(struct ibv_context *c, uint8_t port, unsigned int index, int *type);

/* ---- translation ---- */

/* The real function of a type, searched for once. */
#define REAL(type, name)                                                                                     \
	({                                                                                                   \
		static void *slot_;                                                                          \
		void *real_ = fx_shim_real(#name, &slot_);                                                   \
		if (!real_)                                                                                  \
			fx_shim_missing(#name);                                                              \
		(type) real_;                                                                                \
	})

#define TRANSLATE(ret, theirs, ours, params, args, is_ours)                                                  \
	EXPORT ret theirs params                                                                             \
	{                                                                                                    \
		if (is_ours)                                                                                 \
			return ours args;                                                                    \
		return REAL(ret(*) params, theirs) args;                                                     \
	}

#define X(ret, name, params, args, device)                                                                   \
	TRANSLATE(ret, ibv_##name, flexins_##name, params, args, flexins_owns_device(device))
FX_DEVICE_FNS(X)
#undef X
#define X(ret, name, params, args, context)                                                                  \
	TRANSLATE(ret, ibv_##name, flexins_##name, params, args, flexins_owns_context(context))
FX_CONTEXT_FNS(X)
#undef X
#define X(ret, theirs, ours, params, args, context)                                                          \
	TRANSLATE(ret, theirs, ours, params, args, flexins_owns_context(context))
FX_RENAMED_FNS(X)
#undef X
#define X(name, params, args)                                                                                \
	EXPORT const char *ibv_##name params                                                                 \
	{                                                                                                    \
		static void *slot;                                                                           \
		const char *(*real)params = fx_shim_real("ibv_" #name, &slot);                               \
		return real ? real args : flexins_##name args;                                               \
	}
FX_TEXT_FNS(X)
#undef X

/* Writes the structure that this function had when it was first exported, and no byte more. */
EXPORT int ibv_query_port(struct ibv_context *c, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	typedef int fn(struct ibv_context *, uint8_t, struct _compat_ibv_port_attr *);
	enum { FIRST_SIZE = offsetof(struct ibv_port_attr, port_cap_flags2) };

	if (flexins_owns_context(c))
		return flexins_query_port(c, port, (struct ibv_port_attr *)attr, FIRST_SIZE);
	return REAL(fn *, ibv_query_port)(c, port, attr);
}

EXPORT void ibv_ack_async_event(struct ibv_async_event *event)
{
	struct ibv_context *c = flexins_event_context(event);

	/* an event of a port or the device counts nowhere */
	if (c && !flexins_owns_context(c))
		REAL(void (*)(struct ibv_async_event *), ibv_ack_async_event)(event);
	else
		flexins_ack_async_event(event);
}

/* A descriptor of somebody's context: if not of ours, of a real device. */
EXPORT struct ibv_context *ibv_import_device(int cmd_fd)
{
	static void *slot;
	struct ibv_context *(*real)(int) = fx_shim_real("ibv_import_device", &slot);
	struct ibv_context *ctx = flexins_import_device(cmd_fd);

	if (ctx || errno != EBADF || !real)
		return ctx;
	fx_shim_real_only++;
	ctx = real(cmd_fd);
	fx_shim_real_only--;
	return ctx;
}

EXPORT int ibv_fork_init(void)
{
	static void *slot;
	int (*real)(void) = fx_shim_real("ibv_fork_init", &slot);
	int err = flexins_fork_init();

	return real ? real() : err;
}

EXPORT enum ibv_fork_status ibv_is_fork_initialized(void)
{
	static void *slot;
	enum ibv_fork_status (*real)(void) = fx_shim_real("ibv_is_fork_initialized", &slot);
	enum ibv_fork_status ours = flexins_is_fork_initialized();

	return real && ours != IBV_FORK_ENABLED ? real() : ours;
}

/* ---- the device list: ours, then the real ones ---- */

struct list {
	struct ibv_device **real; /* what the real library gave; NULL: nothing */
	struct ibv_device *device[];
};

/* The program runs on without the device, or not at all if that was asked for. */
static void no_device(void)
{
	static bool told;
	const char *strict = getenv("FLEXINS_STRICT");
	bool fatal = strict && strcmp(strict, "1") == 0;

	if (fatal || !__atomic_exchange_n(&told, true, __ATOMIC_RELAXED))
		fprintf(stderr, "flexins: no device flexins0: %s\n", flexins_why());
	if (fatal)
		exit(1);
}

static struct ibv_device **real_list(int *n)
{
	static void *slot;
	struct ibv_device **(*get)(int *) = fx_shim_real("ibv_get_device_list", &slot);
	struct ibv_device **list;

	*n = 0;
	fx_shim_real_only++;
	list = get ? get(n) : NULL; /* fails where the kernel has no RDMA at all */
	fx_shim_real_only--;
	if (!list)
		*n = 0;
	return list;
}

static void free_real_list(struct ibv_device **list)
{
	if (list)
		REAL(void (*)(struct ibv_device **), ibv_free_device_list)(list);
}

EXPORT struct ibv_device **ibv_get_device_list(int *num_devices)
{
	int n_ours = 0, n_real = 0;
	/* the real library looks for real devices by this function, too, and into them */
	struct ibv_device **ours = fx_shim_real_only ? NULL : flexins_get_device_list(&n_ours);
	struct ibv_device **real;
	struct list *list;

	if (ours && !n_ours)
		no_device();
	real = real_list(&n_real);
	list = calloc(1, sizeof(*list) + (size_t)(n_ours + n_real + 1) * sizeof(list->device[0]));
	if (num_devices)
		*num_devices = list ? n_ours + n_real : 0;
	if (list) {
		list->real = real;
		if (n_ours)
			memcpy(list->device, ours, (size_t)n_ours * sizeof(*ours));
		if (n_real)
			memcpy(list->device + n_ours, real, (size_t)n_real * sizeof(*real));
	} else {
		free_real_list(real);
	}
	flexins_free_device_list(ours);
	errno = list ? 0 : ENOMEM;
	return list ? list->device : NULL;
}

EXPORT void ibv_free_device_list(struct ibv_device **devices)
{
	struct list *list;

	if (!devices)
		return;
	list = (struct list *)((char *)devices - offsetof(struct list, device));
	free_real_list(list->real);
	free(list);
}

/* ---- our functions by name, for dlsym ---- */

void *fx_shim_ours(const char *name)
{
	static const struct {
		const char *name;
		void *fn;
	} table[] = {
#define X(ret, name, params, args, object) {"ibv_" #name, (void *)ibv_##name},
		FX_DEVICE_FNS(X) FX_CONTEXT_FNS(X)
#undef X
#define X(ret, theirs, ours, params, args, context) {#theirs, (void *)theirs},
			FX_RENAMED_FNS(X)
#undef X
#define X(name, params, args) {"ibv_" #name, (void *)ibv_##name},
				FX_TEXT_FNS(X)
#undef X
#define X(name) {#name, (void *)name},
					FX_SPECIAL_FNS(X)
#undef X
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(name, table[i].name) == 0)
			return table[i].fn;
	return NULL;
}
