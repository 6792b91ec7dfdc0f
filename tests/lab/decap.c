/* XDP program: takes the outer header off IPv4-in-IPv4 packets (RFC 2003).
 *
 * Stands in for the kernel's ipip device where the kernel was built without one. It takes what that
 * device would take: no outer options, no fragments, addressed to this host's Ethernet address.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_FRAGMENT 0x3fff /* more-fragments flag and offset (RFC 791, 3.1) */

SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data, keep;
	struct iphdr *outer = data + sizeof(*eth);

	if ((void *)(outer + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (outer->protocol != IPPROTO_IPIP || outer->ihl != 5 ||
	    outer->frag_off & bpf_htons(IP_FRAGMENT))
		return XDP_PASS;
	__builtin_memcpy(&keep, eth, sizeof(keep));
	if (bpf_xdp_adjust_head(ctx, sizeof(*outer)))
		return XDP_DROP;
	/* The verifier forgets both bounds when the head moves. */
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(keep) > end)
		return XDP_DROP;
	__builtin_memcpy(data, &keep, sizeof(keep));
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
