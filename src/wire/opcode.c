/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rows of the opcode table: one list per family, expanded by every transport that has it.
 *
 * Room: wire. May use: C11 only.
 */
#include "wire/opcode.h"

#include "wire/roce.h"

/* What the operations are made of. */
enum {
	SEND = FX_OPF_REQ | FX_OPF_SEND | FX_OPF_PAYLOAD,
	WRITE = FX_OPF_REQ | FX_OPF_WRITE | FX_OPF_PAYLOAD,
	READ = FX_OPF_REQ | FX_OPF_READ | FX_OPF_RETH,
	READ_RESP = FX_OPF_RSP | FX_OPF_READ | FX_OPF_PAYLOAD,
	ACK = FX_OPF_RSP | FX_OPF_ACK | FX_OPF_AETH,
	ATOMIC = FX_OPF_REQ | FX_OPF_ATOMIC | FX_OPF_ATOMICETH,
	STORE = FX_OPF_REQ | FX_OPF_STORE | FX_OPF_PAYLOAD | FX_OPF_RETH,
	ATOMIC_ACK = FX_OPF_RSP | FX_OPF_ATOMIC | FX_OPF_AETH | FX_OPF_ATOMICACKETH,
	FIRST = FX_OPF_FIRST,
	LAST = FX_OPF_LAST,
	ONLY = FX_OPF_ONLY,
	IMM = FX_OPF_IMM,
	INV = FX_OPF_INV,
	RETH = FX_OPF_RETH,
	AETH = FX_OPF_AETH,
};

#define OPS_DATAGRAM(X, t)                                                                                   \
	X(t, SEND_ONLY, SEND | ONLY)                                                                         \
	X(t, SEND_ONLY_IMM, SEND | ONLY | IMM)

#define OPS_SEND_WRITE(X, t)                                                                                 \
	OPS_DATAGRAM(X, t)                                                                                   \
	X(t, SEND_FIRST, SEND | FIRST)                                                                       \
	X(t, SEND_MIDDLE, SEND)                                                                              \
	X(t, SEND_LAST, SEND | LAST)                                                                         \
	X(t, SEND_LAST_IMM, SEND | LAST | IMM)                                                               \
	X(t, WRITE_FIRST, WRITE | FIRST | RETH)                                                              \
	X(t, WRITE_MIDDLE, WRITE)                                                                            \
	X(t, WRITE_LAST, WRITE | LAST)                                                                       \
	X(t, WRITE_LAST_IMM, WRITE | LAST | IMM)                                                             \
	X(t, WRITE_ONLY, WRITE | ONLY | RETH)                                                                \
	X(t, WRITE_ONLY_IMM, WRITE | ONLY | RETH | IMM)

#define OPS_RELIABLE(X, t)                                                                                   \
	OPS_SEND_WRITE(X, t)                                                                                 \
	X(t, READ_REQUEST, READ | ONLY)                                                                      \
	X(t, READ_RESP_FIRST, READ_RESP | FIRST | AETH)                                                      \
	X(t, READ_RESP_MIDDLE, READ_RESP)                                                                    \
	X(t, READ_RESP_LAST, READ_RESP | LAST | AETH)                                                        \
	X(t, READ_RESP_ONLY, READ_RESP | ONLY | AETH)                                                        \
	X(t, ACKNOWLEDGE, ACK | ONLY)                                                                        \
	X(t, ATOMIC_ACKNOWLEDGE, ATOMIC_ACK | ONLY)                                                          \
	X(t, COMPARE_SWAP, ATOMIC | ONLY)                                                                    \
	X(t, FETCH_ADD, ATOMIC | ONLY)                                                                       \
	X(t, SEND_LAST_INV, SEND | LAST | INV)                                                               \
	X(t, SEND_ONLY_INV, SEND | ONLY | INV)                                                               \
	X(t, ATOMIC_WRITE, STORE | ONLY)

/* What a transport adds to each of its operations. */
#define FLAGS_RC(f) (f)
#define FLAGS_UC(f) (f)
#define FLAGS_UD(f) ((f) | FX_OPF_DETH)
#define FLAGS_XRC(f) ((f) | ((f)&FX_OPF_REQ ? FX_OPF_XRCETH : 0))

#define LEN_IF(f, header) ((f)&FX_OPF_##header ? FX_##header##_LEN : 0)
#define EXT_LEN(f)                                                                                           \
	(LEN_IF(f, IMM) + ((f)&FX_OPF_INV ? FX_IMM_LEN : 0) + LEN_IF(f, RETH) + LEN_IF(f, AETH) +            \
	 LEN_IF(f, ATOMICETH) + LEN_IF(f, ATOMICACKETH) + LEN_IF(f, DETH) + LEN_IF(f, XRCETH) +              \
	 LEN_IF(f, CNP))

#define ENTRY(name, f)                                                                                       \
	{                                                                                                    \
		(name), (f), EXT_LEN(f)                                                                      \
	}
#define ROW(t, op, f) [FX_OPT_##t | FX_OP_##op] = ENTRY(#t "_" #op, FLAGS_##t(f)),

const struct fx_opcode_info fx_opcodes[256] = {
	OPS_RELIABLE(ROW, RC) OPS_SEND_WRITE(ROW, UC) OPS_DATAGRAM(ROW, UD)
		OPS_RELIABLE(ROW, XRC)[FX_OPCODE_CNP] = ENTRY("CNP", FX_OPF_CNP),
};
