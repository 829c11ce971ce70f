/* SPDX-License-Identifier: BSD-3-Clause */
/* What a core has one of: tables, core page, mailboxes. See control.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "control/inside.h"

static const struct {
	uint32_t size, rest_ms;
} tables[FX_OBJ_KINDS] = {
	[FX_OBJ_PD] = {FX_LIMIT_PD, 0},	    [FX_OBJ_CHANNEL] = {FX_LIMIT_CHANNEL, 0},
	[FX_OBJ_CQ] = {FX_LIMIT_CQ, 0},	    [FX_OBJ_QP] = {FX_LIMIT_QP, FX_QPN_REST_MS},
	[FX_OBJ_MR] = {FX_LIMIT_MR, 0},	    [FX_OBJ_MW] = {FX_LIMIT_MW, 0},
	[FX_OBJ_AH] = {FX_LIMIT_AH, 0},	    [FX_OBJ_SRQ] = {FX_LIMIT_SRQ, FX_QPN_REST_MS},
	[FX_OBJ_XRCD] = {FX_LIMIT_XRCD, 0},
};

/* One page that every client may read and nobody but the core may write: it is sealed once ours is mapped. */
static int make_page(struct fx_control *ctl)
{
	size_t size = (sizeof(struct fx_core_page) + 4095) & ~(size_t)4095;
	struct fx_core_page *page;

	ctl->page_fd = memfd_create("flexins-core", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ctl->page_fd < 0 || ftruncate(ctl->page_fd, (off_t)size) < 0)
		return -errno;
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ctl->page_fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	ctl->page = page;
	if (fcntl(ctl->page_fd, F_ADD_SEALS,
		  F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	page->magic = FX_CORE_MAGIC;
	page->abi = FX_ABI_VERSION;
	page->shared_cpus = ctl->cfg.shared_cpus;
	/* release: whoever sees it alive (acquire) sees the rest of the page */
	__atomic_store_n(&page->alive, 1, __ATOMIC_RELEASE);
	return 0;
}

static int make_tables(struct fx_control *ctl)
{
	int err = fx_table_init(&ctl->ctxs, FX_LIMIT_CLIENTS, 0);

	for (int k = 0; k < FX_OBJ_KINDS && !err; k++)
		err = fx_table_init(&ctl->objs[k], tables[k].size, tables[k].rest_ms);
	ctl->qp_gen = calloc(FX_LIMIT_QP + 1, sizeof(*ctl->qp_gen));
	ctl->mrs.slot = calloc(FX_LIMIT_MR + 1, sizeof(*ctl->mrs.slot));
	ctl->mrs.n = FX_LIMIT_MR + 1;
	ctl->mrs.mw = calloc(FX_LIMIT_MW + 1, sizeof(*ctl->mrs.mw));
	ctl->mrs.nmw = FX_LIMIT_MW + 1;
	ctl->ahs.slot = calloc(FX_LIMIT_AH + 1, sizeof(*ctl->ahs.slot));
	ctl->ahs.n = FX_LIMIT_AH + 1;
	return err || !ctl->qp_gen || !ctl->mrs.slot || !ctl->mrs.mw || !ctl->ahs.slot ? -ENOMEM : 0;
}

/* The port's EUI-64, in network order as verbs have it. */
static uint64_t guid_of(const uint8_t mac[6])
{
	uint8_t b[8] = {mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
	uint64_t guid;

	memcpy(&guid, b, sizeof(guid));
	return guid;
}

struct fx_control *fx_control_create(const struct fx_control_cfg *cfg, char *why, size_t size)
{
	struct fx_control *ctl = calloc(1, sizeof(*ctl));
	int err;

	if (!ctl) {
		snprintf(why, size, "cannot allocate the control state: %s", strerror(errno));
		return NULL;
	}
	ctl->cfg = *cfg;
	ctl->stop.fd = ctl->page_fd = -1;
	for (int i = 0; i < FX_DOORS; i++)
		ctl->door[i].src.fd = -1;
	if (!cfg->place)
		ctl->cfg.place = &fx_place_shared;
	ctl->guid = guid_of(cfg->port->mac);
	ctl->started_ms = fx_now_ms();
	snprintf(ctl->name, sizeof(ctl->name), "%s", cfg->name);
	ctl->epoll = epoll_create1(EPOLL_CLOEXEC);
	err = ctl->epoll < 0 ? -errno : make_page(ctl);
	if (!err)
		err = make_tables(ctl);
	if (!err)
		err = fx_server_init(ctl);
	if (!err)
		return ctl;
	snprintf(why, size, "cannot set up the control room (core page, tables, event descriptors): %s",
		 strerror(-err));
	fx_control_destroy(ctl);
	return NULL;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void fx_control_destroy(struct fx_control *ctl)
{
	fx_doors_close(ctl);
	close_fd(ctl->stop.fd);
	for (uint32_t w = 0; w < ctl->cfg.workers; w++) {
		close_fd(ctl->mailbox[w].worker_fd);
		close_fd(ctl->mailbox[w].control_fd);
	}
	if (ctl->page)
		munmap(ctl->page, (sizeof(*ctl->page) + 4095) & ~(size_t)4095);
	close_fd(ctl->page_fd);
	close_fd(ctl->epoll);
	fx_table_fini(&ctl->ctxs);
	for (int k = 0; k < FX_OBJ_KINDS; k++)
		fx_table_fini(&ctl->objs[k]);
	free(ctl->qp_gen);
	free(ctl->mrs.slot);
	free(ctl->mrs.mw);
	free(ctl->ahs.slot);
	free(ctl);
}

struct fx_mailbox *fx_control_mailbox(struct fx_control *ctl, uint32_t worker)
{
	return &ctl->mailbox[worker];
}

struct fx_core_page *fx_control_page(struct fx_control *ctl)
{
	return ctl->page;
}

const struct fx_mr_table *fx_control_mrs(struct fx_control *ctl)
{
	return &ctl->mrs;
}

const struct fx_ah_table *fx_control_ahs(struct fx_control *ctl)
{
	return &ctl->ahs;
}

void fx_control_usage(const struct fx_control *ctl, struct fx_control_usage *u)
{
	*u = (struct fx_control_usage){
		.clients = ctl->nclients,
		.strangers = ctl->nstrangers,
		.contexts = ctl->ctxs.used,
		.pds = ctl->objs[FX_OBJ_PD].used,
		.channels = ctl->objs[FX_OBJ_CHANNEL].used,
		.cqs = ctl->objs[FX_OBJ_CQ].used,
		.qps = ctl->objs[FX_OBJ_QP].used,
		.mrs = ctl->objs[FX_OBJ_MR].used,
		.mws = ctl->objs[FX_OBJ_MW].used,
		.ahs = ctl->objs[FX_OBJ_AH].used,
		.srqs = ctl->objs[FX_OBJ_SRQ].used,
		.xrcds = ctl->objs[FX_OBJ_XRCD].used,
	};
}

const struct fx_control_counters *fx_control_counters(const struct fx_control *ctl)
{
	return &ctl->n;
}
