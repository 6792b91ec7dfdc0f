/* Rare inline functions of DPDK as real ones. The frequent ones are called without this file. */
#include "shim.h"

int trutina_errno(void)
{
	return rte_errno;
}

struct rte_mbuf *trutina_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}
