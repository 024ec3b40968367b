//! What an owner's document may make every decision pay, and that finding out takes no longer than reading it.

use super::owners::{Directory, GOOD_B, both, errors, is_accepted, lines, read, refusal};
use crate::policy::{OwnerState, shape_of_owner};
use crate::reason::Reason;
use std::time::Duration;

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(|n| format!("'{}'", item(n))).collect::<Vec<_>>().join(", ")
}

fn groups(count: usize) -> String {
    list(count, |n| format!("g{n}"))
}

#[test]
fn any_number_of_patterns_is_found() {
    for pattern in ["team-a-{}", "team-a-{}-*", "team-a-*-{}", "team-a-{}-*-prod", "team-a-*-{}x-logs"] {
        is_accepted(&lines("grants", 2000, |n| {
            format!("groups: [a], tenants: ['{}']", pattern.replace("{}", &n.to_string()))
        }));
    }
}

#[test]
fn patterns_that_are_compared_one_by_one_are_few() {
    let loose = |count| lines("grants", count, |n| format!("groups: [g{n}], tenants: ['team-a-*{n}*']"));
    is_accepted(&loose(8));
    assert_eq!(
        refusal(&loose(2000)),
        "10:29: grants[8].tenants[0]: `team-a-*8*` is one pattern too many with several `*`: a document holds 8\n  \
         help: name the tenants, or write patterns with one `*`, of which there may be any number"
    );
    // The same one again is no other one, and exceptions are compared as well.
    is_accepted(&format!("{}- {{ groups: [b], tenants: ['team-a-*0*'] }}\n", loose(8)));
    let excepted = format!("{}- {{ groups: [b], tenants: [team-a], except_tenants: ['x*y*z'] }}\n", loose(8));
    assert!(refusal(&excepted).contains("grants[8].except_tenants[0]: `x*y*z` is one pattern too many"));
}

#[test]
fn a_look_up_takes_few_steps() {
    let rule = |pattern: &str| format!("groups: [a], tenants: ['{pattern}']");
    let heads = |count| lines("grants", count, |n| rule(&format!("team-a-{}*", "x".repeat(n))));
    is_accepted(&heads(14));
    assert_eq!(
        refusal(&lines("grants", 130, |n| format!("groups: [g{n}], tenants: ['team-a-{}*']", "x".repeat(n)))),
        "131:31: grants[129].tenants[0]: `team-a-".to_owned()
            + &"x".repeat(129)
            + "*`: to look up a tenant that begins like it takes 138 steps among the patterns of grants, more than 18\n  \
               help: leave out patterns that others hold, or give patterns fewer different beginnings and ends"
    );
    let tails = |count| {
        lines("restrictions", count, |n| {
            format!("groups: [a], tenants: ['team-a-*{}'], networks: [office]", "x".repeat(n + 1))
        }) + "grants: [{ groups: [a], tenants: [team-a] }]\n"
    };
    is_accepted(&tails(13));
    assert!(refusal(&tails(14)).contains("takes 19 steps among the patterns of restrictions, more than 18"));
    // Different beginnings, each with many ends: none needs to match.
    let both = |count: usize| {
        lines("grants", count * 8, |n| {
            format!("groups: [g{n}], tenants: ['team-a-{}*{}y']", "x".repeat(n / 8), "z".repeat(n % 8))
        })
    };
    is_accepted(&both(1));
    assert!(refusal(&both(3)).contains("steps among the patterns of grants, more than 18"));
    // Among exceptions, what a wider one holds takes nothing.
    let except = |count, item: fn(usize) -> String| {
        format!(
            "grants: [{{ groups: [a], tenants: ['team-a-*'], except_tenants: [{}] }}]\n",
            list(count, item)
        )
    };
    is_accepted(&except(5000, |n| format!("team-a-{}-*", "x".repeat(n % 100))));
    is_accepted(&except(5000, |n| format!("team-a-*-{n}")));
    let refused = refusal(&except(40, |n| format!("team-a-{}*-y", "x".repeat(n))));
    assert!(refused.contains("except_tenants[39]"), "{refused}");
    assert!(refused.contains("steps among these exceptions, more than 10"), "{refused}");
}

#[test]
fn a_tenant_meets_few_rules() {
    let until = |n| format!("expires: 2028-01-01T00:{:02}:{:02}Z", n / 60, n % 60);
    let meeting = |count| lines("grants", count, |n| format!("groups: [a], tenants: [team-a], {}", until(n)));
    is_accepted(&meeting(20));
    assert_eq!(
        refusal(&meeting(300)),
        "22:28: grants[20].tenants[0]: `team-a`: more than 20 grants name the group `a` for one tenant\n  \
         help: join rules that differ in their groups alone or in their tenants alone; name fewer tenants in the others"
    );
    // By a tenant, by what it begins or ends with, and by a pattern that may match it.
    for other in ["team-a-*", "team-a-x*", "team-a-*x", "team-a-*x*"] {
        let both = format!(
            "{}- {{ groups: [b, a], tenants: ['{other}'] }}\n",
            lines("grants", 20, |n| format!("groups: [a], tenants: [team-a-xx], {}", until(n)))
        );
        assert!(refusal(&both).contains("more than 20 grants name the group `a` for one tenant"), "{other}");
    }
    // Rules of different ends are not met together; of one end within another they are.
    let ends = |end: fn(usize) -> String| {
        lines("grants", 40, |n| format!("groups: [a], tenants: ['team-a-*{}'], {}", end(n), until(n)))
    };
    is_accepted(&ends(|n| format!("-{n}")));
    assert!(
        refusal(&ends(|n| "-eu-prod".get(n % 4..).unwrap_or_default().to_owned())).contains("the group `a`")
    );
    // A rule counts once, however many of its patterns match.
    let nested = "'team-a-*', 'team-a-x*', 'team-a-xx*', 'team-a-*y', 'team-a-*xy', 'team-a-*x*'";
    is_accepted(&lines("grants", 20, |n| format!("groups: [a], tenants: [{nested}], {}", until(n))));

    let excepting = |count| {
        lines("grants", count, |n| {
            format!("groups: [g{n}], tenants: ['team-a-*'], except_tenants: [team-a-{n}]")
        })
    };
    is_accepted(&excepting(20));
    assert_eq!(
        refusal(&excepting(21)),
        "22:30: grants[20].tenants[0]: `team-a-*`: more than 20 grants with exceptions name one tenant\n  help: join \
         rules that differ in their groups alone, or name tenants and groups in place of exceptions"
    );
    let apart =
        |n: usize| format!("groups: [a], tenants: ['team-a-{}-*'], except_tenants: [team-a-{n}]", n % 400);
    is_accepted(&lines("grants", 2000, apart));

    let each = |count| lines("grants", count, |n| format!("groups: [g{n}], tenants: ['team-a-*']"));
    is_accepted(&each(400));
    assert!(refusal(&each(401)).contains("more than 400 grants name one tenant"));
    // One user may be in fifty groups.
    let again = |count, groups: usize| {
        lines("grants", count, |n| format!("groups: [g{}], tenants: ['team-a-*'], {}", n % groups, until(n)))
    };
    is_accepted(&again(330, 300));
    assert_eq!(
        refusal(&again(331, 300)),
        "332:30: grants[330].tenants[0]: `team-a-*`: more than 30 grants name one tenant, and more than 30 times a \
         group that another of them names\n  help: join rules that differ in their groups alone or in their tenants \
         alone; name fewer tenants in the others"
    );
    is_accepted(&again(30, 2));
    assert!(refusal(&again(80, 20)).contains("more than 30 grants name one tenant, and"));
    let restriction = |n: usize| format!("networks: [10.{}.{}.0/24]", n / 256, n % 256);
    is_accepted(&lines("restrictions", 20, restriction));
    assert_eq!(
        refusal(&lines("restrictions", 21, restriction)),
        "22:3: restrictions[20]: `*`: more than 20 restrictions name the group `*` for one tenant\n  \
         help: join rules that differ in their groups alone or in their tenants alone; name fewer tenants in the others"
    );
    let known = format!("grants: [{{ groups: [{}], tenants: [team-a] }}]\n", groups(1000));
    let of_groups = |count| {
        known.clone() + &lines("restrictions", count, |n| format!("groups: [g{n}], networks: [10.0.0.0/8]"))
    };
    is_accepted(&of_groups(32));
    assert!(refusal(&of_groups(33)).contains("more than 32 restrictions name one tenant"));
    let except = |count| {
        known.clone()
            + &lines("restrictions", 10, |n| {
                let excepted = list(count, |other| format!("g{}", n * count + other));
                format!(
                    "tenants: [team-a], groups: [g{}], except_groups: [{excepted}], networks: [10.0.0.0/8]",
                    999 - n
                )
            })
    };
    is_accepted(&except(50));
    assert!(
        refusal(&except(51)).contains("restrictions that name one tenant except 510 groups, more than 500")
    );
}

#[test]
fn patterns_name_few_groups() {
    is_accepted(&format!("grants: [{{ groups: [{}], tenants: [team-a] }}]\n", groups(5000)));
    let wide = |patterns: &str, count| {
        format!("grants: [{{ groups: [{}], tenants: [{patterns}] }}]\n", groups(count))
    };
    for (patterns, count) in
        [("'team-a-*'", 1000), ("'team-a-*', 'team-a-*x'", 500), ("'team-a-*x', 'team-a-*yx'", 500)]
    {
        is_accepted(&wide(patterns, count));
        let refused = refusal(&wide(patterns, count + 1));
        assert!(refused.contains("patterns of grants that a tenant may match name 100"), "{refused}");
    }
    is_accepted(&wide("'team-a-*x', 'team-a-*y', 'team-a-*z'", 1000));
}

/// Documents as large teams have them.
#[test]
fn large_documents_of_teams_are_accepted() {
    let environments = ["prod", "staging", "dev", "qa", "perf", "demo", "sandbox", "int", "uat", "dr"];
    let regions = ["", "-eu", "-us-east-1", "-apac"];
    let pattern = |n: usize| format!("team-a-*{}-{}", regions[n / 10 % 4], environments[n % 10]);
    let roles = ["developers", "operators", "viewers", "on-call", "auditors"];
    let scopes = ["'*:read'", "'logs:*', 'metrics:read'", "'metrics:*', 'rules:*'"];
    let of_environments = lines("grants", 30, |n| {
        format!(
            "name: r{n}, groups: [team-a-{}], tenants: ['{}', '{}', team-a-{n}], except_tenants: ['team-a-hr-*', 'team-a-*-pci'], \
             scopes: [{}]",
            roles[n % 5],
            pattern(n),
            pattern((n + 10) % 40),
            scopes[n % 3]
        )
    });
    let bounds = lines("restrictions", 10, |n| {
        format!(
            "name: b{n}, tenants: ['team-a-*-{}'], except_groups: [team-a-on-call], networks: [office]",
            environments[n]
        )
    });
    let platform = super::owners::PLATFORM.replace("\"*:read\", \"logs:write\"", "'*:*'");
    let directory =
        Directory::with("team-a", &format!("{of_environments}{bounds}")).and("team-b", Some(GOOD_B), None);
    let (compiled, owners) = super::owners::under(&platform, &directory);
    assert_eq!((owners[0].state, errors(&owners[0])), (OwnerState::Current, Vec::new()));
    let of = |tenant| {
        super::owners::reason(
            &compiled,
            &["team-a-operators"],
            tenant,
            crate::scope::Scope::LogsRead,
            "10.0.0.1",
        )
    };
    assert_eq!(
        [
            of("team-a-shop-eu-staging"),
            of("team-a-shop-staging"),
            of("team-a-shop-eu-dev"),
            of("team-a-hr-eu-staging")
        ],
        [Reason::Granted, Reason::Granted, Reason::TenantForbidden, Reason::TenantForbidden]
    );

    let shared = lines("grants", 300, |n| {
        format!(
            "groups: [team-{n}], tenants: [team-a, 'team-a-shared-*'], scopes: ['logs:read', 'metrics:read']"
        )
    });
    let bounds = lines("restrictions", 30, |n| {
        format!("groups: [team-{n}], tenants: ['team-a-shared-*'], networks: [10.{n}.0.0/16]")
    });
    let text = format!("{shared}{bounds}");
    is_accepted(&text);
    let (compiled, _) = both(&Directory::with("team-a", &text));
    let held: Vec<String> = (100..300).map(|n| format!("team-{n}")).collect();
    let held: Vec<&str> = held.iter().map(String::as_str).collect();
    assert_eq!(
        [read(&compiled, &held, "team-a"), read(&compiled, &["team-300"], "team-a")],
        [Reason::Granted, Reason::TenantForbidden]
    );
}

/// Rules that were good before there were these bounds stay in force until they change.
#[test]
fn what_was_good_once_stays_whatever_it_costs() {
    let slow = lines("grants", 9, |n| format!("groups: [a], tenants: [\"team-a-*{n}*\"]"));
    let directory =
        Directory::default().and("team-a", Some(&slow), Some(&slow)).and("team-b", Some(GOOD_B), None);
    let (compiled, owners) = both(&directory);
    assert_eq!(owners[0].state, OwnerState::LastGood);
    assert!(
        errors(&owners[0])[0].contains("`team-a-*8*` is one pattern too many"),
        "{:?}",
        owners[0].diagnostics
    );
    assert_eq!(read(&compiled, &["a"], "team-a-8"), Reason::Granted);
}

/// What this thread has worked so far: proc(5), `schedstat`.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Four times the document takes about four times as long, and not sixteen times.
#[test]
fn judging_takes_the_time_of_reading() {
    let x = |n: usize| "x".repeat(n);
    let shapes: [(&str, &dyn Fn(usize) -> String); 7] = [
        ("ends of one beginning", &|size| {
            lines("grants", size, |n| format!("groups: [g{n}], tenants: ['t-*-{n}']"))
        }),
        ("beginnings of one end", &|size| {
            lines("grants", size, |n| format!("groups: [a], tenants: ['t-{n}-*-x']"))
        }),
        ("tenants below patterns", &|size| {
            let below = lines("grants", size, |n| format!("groups: [g{n}], tenants: [t-xxxxxxxx-{n}]"));
            (0..12).fold(below, |text, n| {
                text + &format!("- {{ groups: [{}], tenants: ['t-{}*'] }}\n", groups(50), x(n))
            })
        }),
        ("one rule of many patterns", &|size| {
            format!(
                "grants: [{{ groups: [{}], tenants: [{}] }}]\n",
                groups(10),
                list(size, |n| format!("t-{n}*-{n}"))
            )
        }),
        ("groups and tenants", &|size| {
            format!(
                "grants: [{{ groups: [{}], tenants: [{}] }}]\n",
                groups(size),
                list(10, |n| format!("t-{n}"))
            )
        }),
        ("exceptions", &|size| {
            let except = list(size, |n| format!("t-*-{n}"));
            format!("grants: [{{ groups: [a], tenants: ['t-*'], except_tenants: [{except}] }}]\n")
        }),
        ("refused at its end", &|size| {
            let below = lines("grants", size, |n| format!("groups: [a], tenants: ['s-*-{n}', 's-{n}-*']"));
            below
                + &(0..30)
                    .map(|n| format!("- {{ groups: [g{n}], tenants: ['t-{}*'] }}\n", x(n)))
                    .collect::<String>()
        }),
    ];
    for (what, shape) in shapes {
        let took = |size: usize| {
            let text = shape(size);
            let times = (0..3).map(|_| {
                let started = cpu_time();
                let told = shape_of_owner("o.yaml", text.as_bytes());
                assert_eq!(told.len(), usize::from(what == "refused at its end"), "{what}: {told:?}");
                cpu_time() - started
            });
            times.min().unwrap()
        };
        let (small, large) = (took(2000), took(8000));
        assert!(large < small * 9, "{what}: {small:?}, of four times as much {large:?}");
    }
}

/// Nor does looking for what is odd, which holds every pattern against every other.
#[test]
fn looking_for_oddities_takes_the_time_of_reading() {
    let took = |size: usize| {
        let grants =
            lines("grants", size, |n| format!("groups: [a], tenants: ['team-a-{n}-*-x', team-a-{n}]"));
        let restrictions =
            lines("restrictions", size, |n| format!("tenants: ['team-a-*y{n}z'], networks: [office]"));
        let started = cpu_time();
        is_accepted(&format!("{grants}{restrictions}"));
        cpu_time() - started
    };
    let (small, large) = (took(1000), took(4000));
    assert!(large < small * 9, "{small:?}, of four times as much {large:?}");
}
