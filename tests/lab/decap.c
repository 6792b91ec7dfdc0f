/* XDP program: takes the outer header off tunnelled packets.
 *
 * Stands in for the kernel's tunnel devices, which not every kernel was built with. It knows IPv4 and IPv6 in
 * either (RFC 2003, 2473, 4213), GRE (RFC 2784) and GUE on UDP port 6080, all as they come from a balancer:
 * without outer options, extension headers and fragments. Checksums of GRE and UDP are not looked at.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_FRAGMENT 0x3fff /* more-fragments flag and offset (RFC 791, 3.1) */
#define GRE_CHECKSUM 0x8000
#define GUE_PORT 6080

struct gre {
	__be16 flags, protocol;
};

struct gue {
	struct udphdr udp;
	__u8 version, protocol;
	__be16 flags;
};

/* Ethernet type of what an IP protocol number says is inside; 0 if that is no IP packet. */
static __always_inline __be16 inner_type(__u8 protocol)
{
	if (protocol == IPPROTO_IPIP)
		return bpf_htons(ETH_P_IP);
	return protocol == IPPROTO_IPV6 ? bpf_htons(ETH_P_IPV6) : 0;
}

/* Length of the outer IP header, and the protocol behind it; 0 if the packet is not for us to unwrap. */
static __always_inline int outer_len(struct ethhdr *eth, void *end, __u8 *protocol)
{
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if ((void *)(ip4 + 1) > end || ip4->ihl != 5 || ip4->frag_off & bpf_htons(IP_FRAGMENT))
			return 0;
		*protocol = ip4->protocol;
		return sizeof(*ip4);
	}
	if (eth->h_proto != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end)
		return 0;
	*protocol = ip6->nexthdr;
	return sizeof(*ip6);
}

/* Length of what stands between the outer and the inner IP header; sets the type of the latter if there is one. */
static __always_inline int shim_len(void *shim, void *end, __u8 protocol, __be16 *type)
{
	struct gre *gre = shim;
	struct gue *gue = shim;

	if (protocol == IPPROTO_GRE && (void *)(gre + 1) <= end) {
		if (!(gre->flags & ~bpf_htons(GRE_CHECKSUM)))
			*type = gre->protocol;
		return gre->flags ? 8 : 4;
	}
	if (protocol == IPPROTO_UDP && (void *)(gue + 1) <= end && gue->udp.dest == bpf_htons(GUE_PORT)) {
		if (!gue->version && !gue->flags)
			*type = inner_type(gue->protocol);
		return sizeof(*gue);
	}
	*type = inner_type(protocol);
	return 0;
}

SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data, keep;
	__u8 protocol = 0;
	__be16 type = 0;
	int len;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	len = outer_len(eth, end, &protocol);
	if (!len)
		return XDP_PASS;
	len += shim_len((void *)(eth + 1) + len, end, protocol, &type);
	if (!type)
		return XDP_PASS;
	__builtin_memcpy(&keep, eth, sizeof(keep));
	keep.h_proto = type;
	if (bpf_xdp_adjust_head(ctx, len))
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
