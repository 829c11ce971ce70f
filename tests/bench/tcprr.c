/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a program has today: 8-byte TCP request-response on the loopback interface, between two processes.
 * Prints half of the median round trip and of its 99th percentile, in us: "MEDIAN P99".
 *
 * Room: tests. May use: libc.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 8, WARM = 1000, TRIPS = 20000 };

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void no_delay(int fd)
{
	int on = 1;

	check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
}

static int receive(int fd, char *buf)
{
	return recv(fd, buf, BYTES, MSG_WAITALL) == BYTES;
}

static void serve(int listener)
{
	int fd = accept(listener, NULL, NULL);
	char buf[BYTES];

	check(fd >= 0, "accept");
	no_delay(fd);
	while (receive(fd, buf))
		if (send(fd, buf, BYTES, MSG_NOSIGNAL) != BYTES)
			break;
	_exit(0);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sin);
	static uint64_t ns[TRIPS];
	char buf[BYTES] = {0};
	int fd = socket(AF_INET, SOCK_STREAM, 0), listener = socket(AF_INET, SOCK_STREAM, 0);
	pid_t child;

	check(fd >= 0 && listener >= 0, "socket");
	check(bind(listener, (struct sockaddr *)&sin, sizeof(sin)) == 0 && listen(listener, 1) == 0,
	      "listen");
	check(getsockname(listener, (struct sockaddr *)&sin, &len) == 0, "getsockname");
	child = fork();
	check(child >= 0, "fork");
	if (child == 0) {
		close(fd);
		serve(listener);
	}
	check(connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0, "connect");
	no_delay(fd);
	for (int i = -WARM; i < TRIPS; i++) {
		uint64_t start = now_ns();

		check(send(fd, buf, BYTES, 0) == BYTES && receive(fd, buf), "round trip");
		if (i >= 0)
			ns[i] = now_ns() - start;
	}
	close(fd);
	waitpid(child, NULL, 0);
	qsort(ns, TRIPS, sizeof(ns[0]), by_value);
	printf("%.2f %.2f\n", (double)ns[TRIPS / 2] / 2000, (double)ns[TRIPS / 100 * 99] / 2000);
	return 0;
}
