/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What sets datagrams apart when they arrive: a Q_Key instead of a peer, and a receive that begins with the address they
 * came from (IBTA 9.6.1.3, 9.8.3, A17.4.5).
 *
 * Room: transport. Everything else of a datagram is a SEND of one packet.
 */
#include "transport/qp.h"

/*
 * The 40 bytes before the payload become the GRH that the application finds there: the IPv6 header, or zeroes and the
 * IPv4 header. The frame is ours, and these bytes of it were headers; so the message is longer at its front, and lands
 * as any other does.
 */
static void put_grh(struct fx_pkt *p, uint32_t bth)
{
	bool ip4 = bth < FX_ETH_LEN + FX_IP6_LEN + FX_UDP_LEN;
	uint32_t len = ip4 ? FX_IP4_LEN : FX_IP6_LEN;
	uint8_t grh[FX_GRH_LEN] = {0};

	memcpy(grh + FX_GRH_LEN - len, p->frame + bth - FX_UDP_LEN - len, len);
	p->payload_off -= FX_GRH_LEN;
	p->len += FX_GRH_LEN;
	memcpy(p->frame + p->payload_off, grh, FX_GRH_LEN);
	p->grh = (uint8_t)(FX_WCF_GRH | (ip4 ? 0 : FX_WCF_IP6));
}

bool fx_datagram_welcome(struct fx_tp *tp, const struct fx_qp *qp, struct fx_pkt *p, uint32_t bth)
{
	if (!(fx_opcodes[p->bth.opcode].flags & FX_OPF_DETH)) {
		tp->n.rx_wrong_transport++;
		return false;
	}
	if (p->bth.deth.qkey != qp->attr.qkey) {
		tp->n.rx_wrong_qkey++;
		return false;
	}
	if (p->len > qp->mtu) {
		tp->n.rx_bad_length++;
		return false;
	}
	put_grh(p, bth);
	return true;
}
