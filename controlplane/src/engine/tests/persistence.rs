//! Templates that are listed and forgotten.

use dataplane::persist::Persistent;

use super::super::persistence::MAX_LOOKS;
use super::*;
use crate::api::{Forgotten, TemplateList, TemplatesWanted};

/// Two services of one group, one of its own, and one without persistence.
const SERVICES: &str = r#"
[[service]]
vip = "192.0.2.101:80"
protocol = "tcp"
persistence = { group = "shop", prefix_v4 = 24 }
backend = [{ address = "192.0.2.12:8000" }]
[[service]]
vip = "192.0.2.102:80"
protocol = "tcp"
persistence = { group = "shop", prefix_v4 = 24 }
backend = [{ address = "192.0.2.12:8001" }]
[[service]]
vip = "192.0.2.103:0"
protocol = "tcp"
persistence = { across_ports = false }
backend = [{ address = "192.0.2.13:0" }]
"#;

fn service(last: u8, port: u16) -> ServiceKey {
    format!("tcp:192.0.2.{last}:{port}").parse().unwrap()
}

/// A lab with some clients, bound to the second, third and last backend.
fn bound() -> Lab {
    let lab = lab_of(&format!("{CONFIG}{SERVICES}"), Host::none());
    let scope =
        |slot| lab.engine.state.service(ServiceSlot(slot)).unwrap().compiled.persistence.unwrap().scope;
    let keep = |slot: u16, client: [u8; 4], port| {
        let client = dataplane::flow::mapped(u32::from_be_bytes(client));
        let key = Persistent { scope: scope(slot), client, port };
        lab.engine.workers[0].team.templates.keep(0, &key, BackendSlot(slot.into()), 300, None);
    };
    keep(1, [203, 0, 113, 0], 0);
    keep(2, [198, 51, 100, 0], 0);
    keep(3, [203, 0, 113, 9], 22);
    lab
}

async fn list(lab: &mut Lab, service: Option<ServiceKey>, client: Option<&str>) -> TemplateList {
    let client = client.map(|client| client.parse().unwrap());
    let answer = lab.call(Request::PersistenceList(TemplatesWanted { service, client, limit: 2 }));
    serde_json::from_value(answer.await.unwrap().unwrap()).unwrap()
}

fn clients(list: &TemplateList) -> Vec<String> {
    let mut clients: Vec<_> = list.templates.iter().map(|template| template.client.to_string()).collect();
    clients.sort();
    clients
}

#[tokio::test]
async fn templates_are_listed_by_service_and_client() {
    let mut lab = bound();
    let all = list(&mut lab, None, None).await;
    assert_eq!((all.templates.len(), all.total, all.usage.used), (2, 3, 3));
    let group = list(&mut lab, Some(service(101, 80)), None).await;
    assert_eq!((clients(&group), group.total), (vec!["198.51.100.0/24".into(), "203.0.113.0/24".into()], 2));
    assert!(group.templates.iter().all(|template| template.group.as_deref() == Some("shop")));
    let of_client = list(&mut lab, Some(service(102, 80)), Some("203.0.113.77")).await;
    let [template] = &of_client.templates[..] else { panic!("{of_client:?}") };
    assert_eq!((template.service, template.backend), (service(101, 80), "192.0.2.12:8000".parse().unwrap()));
    let by_port = list(&mut lab, Some(service(103, 0)), Some("203.0.113.9")).await;
    assert_eq!((clients(&by_port), by_port.templates[0].port), (vec!["203.0.113.9/32".into()], Some(22)));
    let none = list(&mut lab, Some(service(100, 80)), None).await;
    assert_eq!((none.total, none.usage.used), (0, 3), "it has no persistence");
    let unknown = TemplatesWanted { service: Some(service(9, 80)), client: None, limit: 2 };
    let refused = lab.call(Request::PersistenceList(unknown)).await.unwrap().unwrap_err();
    assert_eq!(refused.code, code::NOT_FOUND);
}

#[tokio::test]
async fn a_service_or_one_client_of_it_is_forgotten() {
    let mut lab = bound();
    for (service, client, templates, left) in [
        (service(103, 0), Some("198.51.100.1"), 0, 3),
        (service(102, 80), Some("198.51.100.1"), 1, 2),
        (service(102, 80), None, 1, 1),
        (service(102, 80), None, 0, 1),
        (service(103, 0), None, 1, 0),
    ] {
        let client = client.map(|client| client.parse().unwrap());
        let answer = lab.call(Request::PersistenceFlush { service, client }).await.unwrap().unwrap();
        let forgotten: Forgotten = serde_json::from_value(answer).unwrap();
        assert_eq!((forgotten, list(&mut lab, None, None).await.total), (Forgotten { templates }, left));
    }
}

#[tokio::test]
async fn a_look_that_is_too_much_is_refused_before_any_work() {
    let mut lab = bound();
    let looks = Arc::clone(&lab.engine.persistence.looks);
    let places = looks.try_acquire_many(MAX_LOOKS as u32).unwrap();
    for service in [None, Some(service(9, 80))] {
        let wanted = TemplatesWanted { service, client: None, limit: 2 };
        let refused = lab.call(Request::PersistenceList(wanted)).await.unwrap().unwrap_err();
        assert_eq!(refused.code, code::LIMIT);
    }
    drop(places);
    let mut lab = bound();
    assert_eq!(list(&mut lab, None, None).await.total, 3);
}

#[tokio::test]
async fn the_metrics_have_what_was_counted_last() {
    let mut lab = bound();
    lab.engine.count_templates();
    let usage = lab.engine.stats().templates;
    assert_eq!((usage.used, usage.capacity), (3, 64));
}
