/* tc programs: put VLAN tags on and take them off, in place of VLAN devices, which not every kernel has.
 *
 * `push` stands at a device's ingress and sends what comes in to the trunk, with up to two tags. `pop` stands at
 * the trunk's ingress and sends what comes with known tags to their device. Frames with other tags, or with none,
 * go no further. TRUNK and SIDE0, SIDE1 are given by tags.py when it compiles this: macros, because tables would
 * need a kernel that knows the types of programs.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88A8
#define VLAN 0x0fff

struct side {
	__u16 outer, inner;
	__u32 device;
};

static __always_inline int push(struct __sk_buff *skb, struct side side)
{
	/* The tag that is put on last comes first in the frame. */
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), side.inner))
		return TC_ACT_SHOT;
	if (side.outer && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021AD), side.outer))
		return TC_ACT_SHOT;
	return bpf_redirect(TRUNK, 0);
}

SEC("tc/push0")
int push0(struct __sk_buff *skb)
{
	return push(skb, (struct side)SIDE0);
}

SEC("tc/push1")
int push1(struct __sk_buff *skb)
{
	return push(skb, (struct side)SIDE1);
}

static __always_inline int has(struct side side, __u16 first, __u16 second)
{
	return side.outer ? first == side.outer && second == side.inner : first == side.inner && !second;
}

/* Takes the first tag off; its VLAN, or 0 if there is none. */
static __always_inline __u16 pop_one(struct __sk_buff *skb)
{
	__u16 vlan = skb->vlan_present ? skb->vlan_tci & VLAN : 0;

	return vlan && !bpf_skb_vlan_pop(skb) ? vlan : 0;
}

SEC("tc/pop")
int pop(struct __sk_buff *skb)
{
	struct side side0 = SIDE0, side1 = SIDE1;
	__u16 first = pop_one(skb), second = pop_one(skb);

	if (has(side0, first, second))
		return bpf_redirect(side0.device, 0);
	if (has(side1, first, second))
		return bpf_redirect(side1.device, 0);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
