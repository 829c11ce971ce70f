/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A library of another version: oldhost SOCKET. Greets a core with an ABI that it cannot have, prints the
 * refusal and fails when it was not refused.
 *
 * Room: tests. May use: libc, control/protocol.h.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "control/protocol.h"

int main(int argc, char **argv)
{
	struct fx_hello_req req = {.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_HELLO, .size = sizeof(req)},
				   .abi = FX_ABI_VERSION + 1000,
				   .role = FX_ROLE_HOST,
				   .version = "77.8.9",
				   .program = "oldhost"};
	union {
		struct fx_msg_why rep;
		char bytes[FX_MSG_BYTES];
	} answer = {0};
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	if (argc != 2)
		return 2;
	strncpy(sun.sun_path, argv[1], sizeof(sun.sun_path) - 1);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 || send(fd, &req, sizeof(req), 0) < 0) {
		perror(argv[1]);
		return 2;
	}
	if (recv(fd, answer.bytes, sizeof(answer.bytes), 0) < (ssize_t)sizeof(struct fx_msg_head)) {
		puts("no answer");
		return 1;
	}
	if (answer.rep.head.err == 0) {
		puts("accepted");
		return 1;
	}
	printf("refused: %.*s\n", FX_WHY_LEN, answer.rep.why);
	return 0;
}
