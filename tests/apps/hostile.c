/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Programs that take away, or hold back, the memory that they registered. Each ends by itself, or shows that only it
 * was hurt; prints "fine" at the end, exits with 77 where the system does not let it try:
 *	hostile exec	becomes another program while the device writes into it
 *	hostile truncate	takes the file away under a shared mapping; truncate_huge: of huge pages
 *	hostile held	userfaultfd holds its pages back
 *	hostile stalled	a file system of its own never answers
 *
 * Room: tests. May use: verbs, the kernel.
 */
#include "hazards.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- exec ---- */

enum { BIG = 4 << 20 };
#define PLACE ((char *)0x200000000000)

static char *map_place(void)
{
	char *p = mmap(PLACE, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		       -1, 0);

	NEED(p == PLACE);
	return p;
}

static void run_exec(const char *self)
{
	char *p = map_place(), *src = pages(BIG / PAGE);
	struct ibv_mr *mr = reg(p, BIG), *from = reg(src, BIG);

	memset(src, 0xee, BIG);
	for (int i = 0; i < 16; i++) {
		struct ibv_sge sge = {.addr = (uintptr_t)src, .length = BIG, .lkey = from->lkey};
		struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};

		wr.wr.rdma.remote_addr = (uintptr_t)p;
		wr.wr.rdma.rkey = mr->rkey;
		NEED(!ibv_post_send(qp, &wr, &bad));
	}
	while (!*at(p, 0)) /* it has begun */
		;
	execl(self, self, "after_exec", (char *)NULL);
	NEED(false);
}

static void after_exec(void)
{
	char *p = map_place();

	memset(p, 0x11, BIG);
	for (int i = 0; i < 20; i++) {
		usleep(20000);
		for (size_t off = 0; off < BIG; off += 8)
			NEED(*at(p, off) == UINT64_C(0x1111111111111111));
	}
}

/* ---- truncate ---- */

static void truncated(unsigned flags, size_t len, const struct ibv_mr *other, word *w)
{
	static const enum ibv_wr_opcode ops[] = {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};
	int fd = memfd_create("mine", MFD_CLOEXEC | flags);
	struct ibv_mr *mr;
	char *p;

	p = fd < 0 || ftruncate(fd, (off_t)len) ? MAP_FAILED
						: mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED && flags)
		exit(SKIPPED);
	NEED(p != MAP_FAILED);
	mr = reg(p, len);
	both_see(mr, at(p, len / 2));
	NEED(!ftruncate(fd, 0));
	for (int i = 0; i < 2; i++) { /* as the remote side, */
		post(scratch_mr, &scratch[2], ops[i], mr, p + len / 2, 0, 0);
		NEED(outcome().status != IBV_WC_SUCCESS);
		meet_again();
	}
	for (int i = 0; i < 2; i++) { /* and as the local one */
		post(mr, p + len / 2, ops[i], other, (void *)(uintptr_t)w, 0, 0);
		NEED(outcome().status != IBV_WC_SUCCESS);
		meet_again();
	}
	both_see(other, w);
	NEED(!ibv_dereg_mr(mr));
}

static void truncate_all(bool huge)
{
	char *p = pages(1);
	struct ibv_mr *other = reg(p, PAGE);

	if (huge)
		truncated(MFD_HUGETLB, 2 << 20, other, at(p, 8));
	else
		truncated(0, 16 * PAGE, other, at(p, 8));
}

/* ---- held ---- */

static void held(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register r = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	char *p = pages(16), *q = pages(1);
	struct ibv_mr *mr, *other = reg(q, PAGE);
	time_t start;

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		exit(SKIPPED);
	r.range = (struct uffdio_range){.start = (uintptr_t)p, .len = 16 * PAGE};
	NEED(!ioctl(fd, UFFDIO_REGISTER, &r));
	mr = reg(p, 16 * PAGE);
	start = time(NULL);
	post(scratch_mr, &scratch[2], IBV_WR_RDMA_WRITE, mr, p + PAGE, 0, 0);
	NEED(outcome().status != IBV_WC_SUCCESS && time(NULL) - start < 5);
	meet_again();
	both_see(other, at(q, 0));
}

/* ---- stalled ---- */

/* One file, `f`, of which nothing can be read. */
static void answer(int fd, const struct fuse_in_header *in)
{
	struct {
		struct fuse_out_header head;
		union {
			struct fuse_init_out init;
			struct fuse_entry_out entry;
			struct fuse_attr_out attr;
			struct fuse_open_out open;
		};
	} out = {.head = {.unique = in->unique, .len = sizeof(out.head)}};
	const struct fuse_attr file = {.ino = 2, .size = 16 * PAGE, .mode = S_IFREG | 0666, .nlink = 1};
	const struct fuse_attr dir = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2};

	switch (in->opcode) {
	case FUSE_INIT:
		out.init = (struct fuse_init_out){
			.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 65536};
		out.head.len += sizeof(out.init);
		break;
	case FUSE_LOOKUP:
		out.entry = (struct fuse_entry_out){.nodeid = 2, .attr = file};
		out.head.len += sizeof(out.entry);
		break;
	case FUSE_GETATTR:
		out.attr = (struct fuse_attr_out){.attr = in->nodeid == 2 ? file : dir};
		out.head.len += sizeof(out.attr);
		break;
	case FUSE_OPEN:
		out.head.len += sizeof(out.open);
		break;
	case FUSE_READ:
	case FUSE_FORGET:
	case FUSE_INTERRUPT:
		return;
	default:
		out.head.error = -ENOSYS;
	}
	NEED(write(fd, &out, out.head.len) == (ssize_t)out.head.len);
}

static void *serve(void *arg)
{
	static char buf[256 << 10];
	int fd = (int)(intptr_t)arg;

	while (read(fd, buf, sizeof(buf)) > 0)
		answer(fd, (const struct fuse_in_header *)(const void *)buf);
	return NULL;
}

static char *map_stalling_file(void)
{
	char dir[] = "/tmp/hostile.XXXXXX", path[64], opts[64];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), file;
	pthread_t t;
	char *p;

	NEED(mkdtemp(dir));
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	snprintf(path, sizeof(path), "%s/f", dir);
	/* a view of the file systems of our own: the mount ends with us */
	if (fd < 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("hostile", dir, "fuse", MS_NOSUID | MS_NODEV, opts)) {
		rmdir(dir);
		exit(SKIPPED);
	}
	NEED(!pthread_create(&t, NULL, serve, (void *)(intptr_t)fd));
	file = open(path, O_RDWR | O_CLOEXEC);
	NEED(file >= 0);
	p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	NEED(p != MAP_FAILED);
	close(file); /* while there is somebody to ask */
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	return p;
}

/* The copies, from it and to it, never end; the program is disconnected, and finds out. */
static void stalled(void)
{
	enum ibv_wc_status status;
	char *p = map_stalling_file();
	struct ibv_mr *mr = reg(p, 16 * PAGE);
	struct ibv_async_event event;
	time_t start = time(NULL);

	post(scratch_mr, &scratch[2], IBV_WR_RDMA_READ, mr, p, 0, 0);
	post(scratch_mr, &scratch[3], IBV_WR_RDMA_WRITE, mr, p + PAGE, 0, 0);
	alarm(30);
	NEED(!ibv_get_async_event(ctx, &event) && event.event_type == IBV_EVENT_DEVICE_FATAL);
	ibv_ack_async_event(&event);
	printf("NOTE: disconnected after %d s\n", (int)(time(NULL) - start));
	status = outcome().status; /* no answer came for as long as the QP had patience */
	NEED(status == IBV_WC_RETRY_EXC_ERR || status == IBV_WC_WR_FLUSH_ERR);
	NEED(outcome().status == IBV_WC_WR_FLUSH_ERR);
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	if (!strcmp(what, "after_exec")) {
		after_exec();
		puts("fine");
		return 0;
	}
	meet();
	if (!strcmp(what, "exec"))
		run_exec(argv[0]);
	else if (!strcmp(what, "truncate") || !strcmp(what, "truncate_huge"))
		truncate_all(what[8]);
	else if (!strcmp(what, "held"))
		held();
	else if (!strcmp(what, "stalled"))
		stalled();
	else
		NEED(!"a known case");
	puts("fine");
	return 0;
}
