/* What dpdk-sys binds: DPDK's headers, and names for what bindgen cannot see in them. */
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Macros with casts, which bindgen does not evaluate. */
static const uint64_t TRUTINA_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t TRUTINA_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t TRUTINA_RSS_FLOWS =
    RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
/* The high halves: bindgen evaluates no number with bit 63. */
static const uint64_t TRUTINA_RSS_SOURCE_HIGH =
    (RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L4_SRC_ONLY) >> 32;
static const uint64_t TRUTINA_RSS_DESTINATION_HIGH =
    (RTE_ETH_RSS_L3_DST_ONLY | RTE_ETH_RSS_L4_DST_ONLY) >> 32;

/* The calling thread's rte_errno, a thread-local variable. */
int trutina_errno(void);

/* An empty mbuf with one segment, or NULL; rte_pktmbuf_alloc is inline. */
struct rte_mbuf *trutina_pktmbuf_alloc(struct rte_mempool *pool);
