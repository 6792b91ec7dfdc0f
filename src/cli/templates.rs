//! Tables of persistence templates.

use controlplane::api::{Forgotten, Template, TemplateList};

use super::tables::{hidden, span, table, text};

/// `trutina persistence list`.
pub fn templates(list: &TemplateList) -> String {
    let mut templates = table(&["Client", "Service", "Group", "Port", "Backend", "Expires"], 3..4);
    for template in &list.templates {
        templates.add_row(row(template));
    }
    let hidden = hidden(list.templates.len(), list.total);
    let (used, capacity) = (list.usage.used, list.usage.capacity);
    format!("{}{hidden}{used} of {capacity} templates are in use\n", text(&templates))
}

fn row(template: &Template) -> [String; 6] {
    let client = match template.client {
        // One address is written as such.
        network if network.prefix_len() == network.max_prefix_len() => network.addr().to_string(),
        network => network.to_string(),
    };
    [
        client,
        template.service.to_string(),
        template.group.clone().unwrap_or_else(|| "-".to_owned()),
        template.port.map_or_else(|| "any".to_owned(), |port| port.to_string()),
        template.backend.to_string(),
        span(template.expires_secs.into()),
    ]
}

/// `trutina persistence flush`.
pub fn forgotten(forgotten: Forgotten) -> String {
    format!("{} templates are forgotten\n", forgotten.templates)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn templates_are_shown() {
        let mut list = samples::templates();
        assert_eq!(
            templates(&list),
            "\
Client          Service              Group  Port  Backend             Expires
203.0.113.0/24  tcp:192.0.2.100:80   shop    any  198.51.100.7:8000   00:04:59
2001:db8:7::7   tcp:[2001:db8::1]:0  -       443  [2001:db8:2::11]:0  01:00:00
10 more; --limit 12 shows all
17 of 65536 templates are in use
"
        );
        list.total = 2;
        assert!(!templates(&list).contains("more"));
        assert_eq!(forgotten(Forgotten { templates: 7 }), "7 templates are forgotten\n");
    }
}
