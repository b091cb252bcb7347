#![no_main]

use libfuzzer_sys::fuzz_target;
use shardmq::policy::{Access, Acl, Client, Grant, Reach};
use shardmq::topic::{Filter, Name};

// The first line is a topic, the second a filter, the third the client's names, the rest an ACL file. What
// a filter is said to reach holds for the topic, if the filter matches it.
fuzz_target!(|text: &str| {
    let mut lines = text.splitn(4, '\n');
    let (Some(topic), Some(filter), Some(name), Some(file)) =
        (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let (Ok(topic), Ok(filter), Ok(acl)) =
        (Name::parse(topic), Filter::parse(filter), Acl::parse(file))
    else {
        return;
    };
    let grant = Grant {
        username: Some(name.into()),
        ..Grant::default()
    };
    for grant in [None, Some(&grant)] {
        let client = Client {
            number: 1,
            client_id: name,
            grant,
        };
        let may = acl.allows(&client, topic, Access::Read);
        let _ = acl.allows(&client, topic, Access::Write);
        let reach = acl.reach(&client, filter);
        if filter.matches(topic) {
            assert!(reach != Reach::All || may);
            assert!(reach != Reach::Nothing || !may);
        }
    }
});
