//! Says when memory is not on huge pages: then every cache miss costs a look at page tables more.

use std::fs;

/// Where the kernel says whether it gives huge pages to who asks for them; absent if it never does.
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Warns once, at the start, of memory that will be slower than it could be. `hugepages` is DPDK's.
pub fn warn_if_small(hugepages: bool) {
    // A kernel without such pages has no such file.
    let transparent = fs::read_to_string(TRANSPARENT).unwrap_or_else(|_| "[never]".to_owned());
    for warning in warnings(&transparent, hugepages) {
        tracing::warn!("{warning}");
    }
}

/// What there is to say; `transparent` is the kernel's list of choices, with its choice in brackets.
fn warnings(transparent: &str, hugepages: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if transparent.contains("[never]") {
        warnings.push(format!(
            "flow tables are not on huge pages, each packet costs more; run `echo madvise > {TRANSPARENT}` and \
             start again"
        ));
    }
    if !hugepages {
        warnings.push(
            "packet memory is not on huge pages, each packet costs more; take out `hugepages = false` in [dpdk] \
             where speed matters"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pages_are_told_with_what_to_do() {
        for allowed in ["always [madvise] never\n", "[always] madvise never\n"] {
            assert!(warnings(allowed, true).is_empty());
        }
        let of_tables = warnings("always madvise [never]\n", true);
        assert!(of_tables.len() == 1 && of_tables[0].contains("echo madvise >"), "{of_tables:?}");
        let of_packets = warnings("[always] madvise never\n", false);
        assert!(of_packets.len() == 1 && of_packets[0].contains("[dpdk]"), "{of_packets:?}");
    }
}
