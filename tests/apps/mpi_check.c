/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An MPI program that knows what it has to receive: a ring of messages of every size around the protocols' limits,
 * everybody to everybody, collectives, and one-sided access.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, ranks;

static void need(int ok, const char *what, size_t size)
{
	if (ok)
		return;
	printf("rank %d: %s of %zu bytes brought wrong data\n", rank, what, size);
	fflush(stdout);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

/* Another byte for each sender, place and message. */
static uint8_t byte_of(int from, size_t i, size_t size)
{
	return (uint8_t)(i * 7 + (i >> 8) * 13 + size + (size_t)from * 101);
}

static void fill(uint8_t *buf, int from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		buf[i] = byte_of(from, i, size);
}

static int good(const uint8_t *buf, int from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (buf[i] != byte_of(from, i, size))
			return 0;
	return 1;
}

static void ring(uint8_t *out, uint8_t *in, size_t size)
{
	const int next = (rank + 1) % ranks, before = (rank + ranks - 1) % ranks;
	MPI_Status status;
	int got;

	fill(out, rank, size);
	memset(in, 0xee, size + 1);
	MPI_Sendrecv(out, (int)size, MPI_BYTE, next, (int)(size % 1000), in, (int)size, MPI_BYTE, before,
		     (int)(size % 1000), MPI_COMM_WORLD, &status);
	MPI_Get_count(&status, MPI_BYTE, &got);
	need((size_t)got == size && good(in, before, size) && in[size] == 0xee, "a ring", size);
}

/* Many at once, received in another order than they are sent. */
static void burst(uint8_t *out, uint8_t *in, size_t size)
{
	enum { N = 32 };
	const int next = (rank + 1) % ranks, before = (rank + ranks - 1) % ranks;
	MPI_Request request[2 * N];

	for (int i = 0; i < N; i++)
		MPI_Irecv(in + (size_t)i * size, (int)size, MPI_BYTE, before, N - i, MPI_COMM_WORLD,
			  &request[i]);
	for (int i = 0; i < N; i++) {
		fill(out + (size_t)i * size, rank + i, size);
		MPI_Isend(out + (size_t)i * size, (int)size, MPI_BYTE, next, N - i, MPI_COMM_WORLD,
			  &request[N + i]);
	}
	MPI_Waitall(2 * N, request, MPI_STATUSES_IGNORE);
	for (int i = 0; i < N; i++)
		need(good(in + (size_t)i * size, before + i, size), "a burst", size);
}

static void collectives(uint8_t *out, uint8_t *in, size_t size)
{
	uint64_t sum[1000];

	for (int i = 0; i < ranks; i++)
		fill(out + (size_t)i * size, rank * 16 + i, size);
	MPI_Alltoall(out, (int)size, MPI_BYTE, in, (int)size, MPI_BYTE, MPI_COMM_WORLD);
	for (int i = 0; i < ranks; i++)
		need(good(in + (size_t)i * size, i * 16 + rank, size), "an all-to-all", size);
	for (size_t i = 0; i < 1000; i++)
		sum[i] = (uint64_t)rank * 1000000 + i;
	MPI_Allreduce(MPI_IN_PLACE, sum, 1000, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
	for (size_t i = 0; i < 1000; i++)
		need(sum[i] == (uint64_t)ranks * (uint64_t)(ranks - 1) / 2 * 1000000 + (uint64_t)ranks * i,
		     "a sum", sizeof(sum));
	if (rank == 0)
		fill(in, 77, size);
	MPI_Bcast(in, (int)size, MPI_BYTE, 0, MPI_COMM_WORLD);
	need(good(in, 77, size), "a broadcast", size);
}

static void one_sided(uint8_t *out, size_t size)
{
	const int next = (rank + 1) % ranks, before = (rank + ranks - 1) % ranks;
	uint8_t *base;
	MPI_Win win;

	MPI_Win_allocate((MPI_Aint)(2 * size), 1, MPI_INFO_NULL, MPI_COMM_WORLD, &base, &win);
	MPI_Win_fence(0, win);
	fill(out, rank, size);
	MPI_Put(out, (int)size, MPI_BYTE, next, 0, (int)size, MPI_BYTE, win);
	MPI_Win_fence(0, win);
	need(good(base, before, size), "a put", size);
	memset(out, 0, size);
	MPI_Get(out, (int)size, MPI_BYTE, next, 0, (int)size, MPI_BYTE, win);
	MPI_Win_fence(0, win);
	need(good(out, rank, size), "a get", size);
	MPI_Win_free(&win);
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = {0, 1, 64, 1023, 4096, 8191, 16384, 65537, 262144, 1048577};
	const size_t room = 8 << 20;
	uint8_t *out = malloc(room), *in = malloc(room);

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	need(out && in, "malloc", room);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (int again = 0; again < 5; again++)
			ring(out, in, sizes[i]);
		if (sizes[i] * 32 <= room)
			burst(out, in, sizes[i]);
		if (sizes[i] * (size_t)ranks <= room)
			collectives(out, in, sizes[i]);
		if (sizes[i])
			one_sided(out, sizes[i]);
	}
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0)
		printf("passed with %d ranks\n", ranks);
	MPI_Finalize();
	free(out);
	free(in);
	return 0;
}
