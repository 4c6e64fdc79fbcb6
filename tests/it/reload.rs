//! Another configuration takes the place of the one in force, while calls are on their way, or nothing of it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Home, Reply, Server, Upstream, summary, until};

const RELOAD: &str = "/admin/reload";
const CHAT: &str = "/v1/chat/completions";

fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

async fn reload(server: &Server) -> Answer {
    server.admin().post_bytes(RELOAD, "").await
}

/// Reloads; the keys that changed.
async fn changed(server: &Server) -> Value {
    reload(server).await.check(200).json()["changed"].clone()
}

/// Of a metric with these labels, 0 where there is none.
async fn metric(server: &Server, name: &str) -> u64 {
    let metrics = server.admin().get("/metrics").await.check(200).text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a number"))
}

fn reloads(result: &str) -> String {
    format!("nearhit_config_reloads_total{{result={result:?}}}")
}

/// Clients that ask one question after another until they are told to stop, each question a new one.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(client: &Client, clients: usize) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let run = |number: usize| {
            let (client, stop, calls) = (client.clone(), Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                let mut question = 0;
                while !stop.load(Ordering::Relaxed) {
                    question += 1;
                    client.chat(&ask(&format!("Question {question} of {number}?"))).await.check(200);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients = (0..clients).map(run).collect();
        Self { stop, calls, clients }
    }

    /// Returns once so many more calls were answered.
    async fn go_on_for(&self, calls: usize) {
        let wanted = self.calls.load(Ordering::Relaxed) + calls;
        until("calls are answered", async || (self.calls.load(Ordering::Relaxed) >= wanted).then_some(())).await;
    }

    /// Asserts that none failed; how many there were.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("every call is answered with 200");
        }
        self.calls.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn another_upstream_takes_over_under_load_and_no_call_fails() {
    let (one, two) = (Upstream::saying("one").await, Upstream::saying("two").await);
    let config = |upstream: &Upstream| format!("[upstream]\nopenai = {:?}\n", upstream.base());
    let home = Home::with_config(&config(&one));
    let server = home.serve(&[]).await;
    let client = server.client("sk-test");

    // A stream that began before goes on to its end.
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    one.answer_with(move |call| reply.take().unwrap_or_else(|| Reply::saying("one", call)));
    let mut streamed = ask("A long story?");
    streamed["stream"] = json!(true);
    let opening = {
        let client = client.with("content-type", "application/json");
        tokio::spawn(async move { client.open(http::Method::POST, CHAT, streamed.to_string()).await })
    };
    live.send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once\"}}]}\n\n").await;
    let stream = opening.await.expect("an answer");

    let load = Load::start(&client, 4);
    load.go_on_for(20).await;
    home.configure(&config(&two));
    assert_eq!(changed(&server).await, json!(["upstream.openai"]));
    // Nothing that comes from now on goes to the first.
    let answer = client.chat(&ask("Who are you now?")).await.check(200);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "two");
    load.go_on_for(20).await;
    let asked = one.count();
    load.go_on_for(20).await;
    assert_eq!(one.count(), asked);
    let calls = load.end().await;
    // Each call once: those of the load, the stream, and the one that asked who it was.
    assert_eq!(one.count() + two.count(), calls + 2);

    live.send("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n").await;
    drop(live);
    let body = stream.into_body().collect().await.expect("a whole stream").to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"), "{body:?}");
    assert_eq!(metric(&server, &reloads("applied")).await, 1);
}

/// A valid configuration, spoilt in twenty ways, ten times each.
fn spoilt(valid: &str) -> Vec<String> {
    let added: [fn(usize) -> String; 14] = [
        |n| format!("[cache]\nthreshold = 1.{n}1\n"),
        |n| format!("[cache]\nttl_s = -{n}\n"),
        |n| format!("[cache]\njudge = \"nobody{n}\"\n"),
        |n| format!("[cache]\nunheard_of_{n} = true\n"),
        |n| format!("[cache]\nreplay = \"{n} times\"\n"),
        |n| format!("[caches.Bad{n}]\nshadow = true\n"),
        |n| format!("[limits]\nrequests_per_second = -{n}\n"),
        |n| format!("[tenants.\"No Name {n}\"]\nin_flight = 1\n"),
        |n| format!("[[keys]]\nid = \"{n}\"\n"),
        |n| format!("[[upstreams]]\nname = \"a{n}\"\n"),
        |n| format!("[aliases]\na = {n}\n"),
        |n| format!("[judge]\nmodel = \"m\"\nkey_env = \"NOBODY_SET_THIS_{n}\"\n"),
        |n| format!("[serve]\ndrain_s = {}\n", 500 + n),
        |n| format!("[store]\nentries_max = {n}\n"),
    ];
    let broken: [fn(&str, usize) -> String; 6] = [
        |valid, n| format!("{valid}\n[section{n}\n"),
        |valid, n| valid.replacen("http://", &format!("ftp{n}://"), 1),
        |valid, n| valid.replacen("openai = \"", &format!("openai{n} = \""), 1),
        |valid, n| valid.replacen("openai = \"", &format!("openai = \"{n} "), 1),
        |valid, n| valid.replacen("[upstream]", &format!("tenancy = \"{n}\"\n[upstream]"), 1),
        |valid, n| valid.replacen("[upstream]", &format!("[upstream]\nretries = {}", 3 + n), 1),
    ];
    (1..=10)
        .flat_map(|n| {
            let added = added.map(|add| format!("{valid}\n{}", add(n)));
            added.into_iter().chain(broken.map(|spoil| spoil(valid, n)))
        })
        .collect()
}

#[tokio::test]
async fn two_hundred_configurations_are_refused_under_load_and_nothing_changes() {
    let upstream = Upstream::saying("As ever.").await;
    let valid = format!("[upstream]\nopenai = {:?}\n", upstream.base());
    let home = Home::with_config(&valid);
    let mut server = home.serve(&[]).await;
    let before = metric(&server, "nearhit_config_in_force_since_seconds").await;
    assert!(before > 1_700_000_000, "{before}");
    let load = Load::start(&server.client("sk-test"), 4);
    let spoilt = spoilt(&valid);
    assert_eq!(spoilt.len(), 200);
    for config in &spoilt {
        home.configure(config);
        let message = reload(&server).await.refusal(422, "invalid_config");
        assert!(!message.is_empty(), "{config}");
    }
    load.go_on_for(1).await;
    let calls = load.end().await;
    assert_eq!(upstream.count(), calls, "each call was made once");
    assert_eq!(metric(&server, &reloads("refused")).await, 200);
    assert_eq!(metric(&server, &reloads("applied")).await, 0);
    assert_eq!(metric(&server, "nearhit_config_in_force_since_seconds").await, before);
    // What is valid again is what is in force.
    home.configure(&valid);
    assert_eq!(changed(&server).await, json!([]));
    assert_eq!(metric(&server, &reloads("unchanged")).await, 1);
    server.check_alive();
}

#[tokio::test]
async fn every_problem_is_named_at_once_and_what_needs_a_restart_too() {
    let (one, two) = (Upstream::saying("one").await, Upstream::saying("two").await);
    let config = |upstream: &Upstream, more: &str| format!("[upstream]\nopenai = {:?}\n{more}", upstream.base());
    let home = Home::with_config(&config(&one, ""));
    let server = home.serve(&[]).await;
    let client = server.client("sk-test");
    let check = async |more: &str, words: &[&str]| {
        let file = home.configure(&config(&two, more));
        let message = reload(&server).await.refusal(422, "invalid_config");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
        // Nothing of it is in force, what could be neither.
        let answer = client.with("cache-control", "no-store").chat(&ask("Who?")).await.check(200);
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "one", "{more}");
        (file, message)
    };
    let (file, message) = check(
        "[cache]\nthreshold = 2\nttl_s = 0\n[limits]\nburst = 0\n",
        &["cache.threshold: ", "cache.ttl_s: ", "limits.burst: "],
    )
    .await;
    assert!(message.starts_with(&format!("{file}: ")) && message.lines().count() == 3, "{message}");
    let restart = ["serve.drain_s", "embed.workers", "store.durability", "templates.refill"];
    let lines = restart.map(|key| format!("{key}: needs a restart"));
    let more =
        "[serve]\ndrain_s = 7\n[embed]\nworkers = 77\n[store]\ndurability = \"each\"\n[templates]\nrefill = true\n";
    let (_, message) = check(more, &lines.each_ref().map(String::as_str)).await;
    assert_eq!(message.lines().count(), 4, "{message}");
    let missing = home.path("none.key");
    let key = format!("openai_key_file = {missing:?}\n[judge]\nmodel = \"m\"\nkey_file = {missing:?}\n");
    let (_, message) = check(&key, &["upstream.openai_key_file", "judge.key_file", "none.key"]).await;
    assert_eq!(message.lines().count(), 2, "{message}");
    std::fs::remove_file(home.path("nearhit.toml")).expect("a file");
    assert!(reload(&server).await.refusal(422, "invalid_config").contains("nearhit.toml"));
    home.configure(&config(&two, ""));
    assert_eq!(changed(&server).await, json!(["upstream.openai"]));
    let answer = client.with("cache-control", "no-store").chat(&ask("Who?")).await.check(200);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "two");
}

#[tokio::test]
async fn flags_and_environment_still_overrule_the_file() {
    let [flag, variable, file] =
        [Upstream::saying("flag").await, Upstream::saying("variable").await, Upstream::saying("file").await];
    let home = Home::new();
    let variables = [("NEARHIT_ANTHROPIC_UPSTREAM", variable.origin())];
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = home.serve_with(&["--upstream", &flag.base()], &variables).await;
    let config = format!(
        "[upstream]\nopenai = {:?}\nanthropic = {:?}\n[serve]\nlisten = \"127.0.0.1:1\"\n[cache]\nttl_s = 60\n",
        file.base(),
        file.origin()
    );
    home.configure(&config);
    let changed = changed(&server).await;
    assert!(changed.as_array().expect("keys").contains(&json!("cache.ttl_s")), "{changed}");
    assert!(!changed.to_string().contains("upstream"), "{changed}");
    let client = server.client("sk-test");
    client.chat(&ask("Who?")).await.check(200);
    client.post("/v1/messages", &ask("Who?")).await.check(200);
    assert_eq!([flag.count(), variable.count(), file.count()], [1, 1, 0]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_hangup_reloads_too() {
    let (one, two) = (Upstream::saying("one").await, Upstream::saying("two").await);
    let home = Home::with_config(&format!("[upstream]\nopenai = {:?}\n", one.base()));
    let mut server = home.serve(&[]).await;
    for (config, result) in [
        (format!("[upstream]\nopenai = {:?}\n[cache]\nttl_s = 0\n", two.base()), "refused"),
        (format!("[upstream]\nopenai = {:?}\n", two.base()), "applied"),
    ] {
        home.configure(&config);
        server.hang_up();
        until(result, async || (metric(&server, &reloads(result)).await == 1).then_some(())).await;
    }
    server.client("sk-test").chat(&ask("Who?")).await.check(200);
    assert_eq!((one.count(), two.count()), (0, 1));
    let log = server.log();
    assert!(log.contains("refused another configuration") && log.contains("cache.ttl_s"), "{log}");
    assert!(log.contains("took up another configuration"), "{log}");
    server.check_alive();
}

/// A table for a key of the configuration, and the key.
fn configured_key(home: &Home, tenant: &str, scopes: &str) -> (String, String) {
    let made = home.run(&["key", "create", "--tenant", tenant, "--scopes", scopes, "--for-config"]);
    made.check(0, &[]);
    let (key, table) = made.stdout.split_once("\n\n").expect("a key and a table");
    (format!("{table}\n"), key.trim().to_owned())
}

#[tokio::test]
async fn keys_of_the_configuration_come_and_go() {
    let home = Home::new();
    let (ops_table, ops) = configured_key(&home, "ops", "admin");
    let (acme_table, acme) = configured_key(&home, "acme", "read,write");
    let (late_table, late) = configured_key(&home, "late", "read");
    home.configure(&format!("{ops_table}{acme_table}"));
    let server = home.serve(&[]).await;
    let status = async |key: &str| server.client(key).get("/v1/caches").await.status.as_u16();
    let reload = async |key: &str| Client::new(&server.admin_url, key).post_bytes(RELOAD, "").await;
    assert_eq!([status(&acme).await, status(&late).await], [200, 401]);
    reload("").await.refusal(401, "invalid_api_key");
    reload(&acme).await.refusal(403, "permission_denied");
    home.configure(&format!("{ops_table}{late_table}"));
    assert_eq!(reload(&ops).await.check(200).json()["changed"], json!(["keys"]));
    assert_eq!([status(&acme).await, status(&late).await], [401, 200]);
    // With the last key gone nobody is let in: an open server must be asked for by a start.
    home.configure("");
    assert_eq!(reload(&ops).await.check(200).json()["changed"], json!(["keys"]));
    assert_eq!([status(&acme).await, status(&late).await, status("").await], [401, 401, 401]);
    reload(&ops).await.refusal(401, "invalid_api_key");
    let log = server.log();
    assert!(![&ops, &acme, &late].iter().any(|key| log.contains(*key)), "{log}");
}

#[tokio::test]
async fn a_changed_policy_counts() {
    let external = "[embed]\nmodel = \"external\"\ndimensions = 4\n";
    let home = Home::with_config(external);
    let server = home.serve(&[]).await;
    let client = server.client("");
    client.insert(&json!({"prompt": "up", "vector": [0, 0.6, 0.8, 0], "response": "r"})).await;
    let near = json!({"prompt": "upwards", "vector": [0, 0.61, 0.79, 0]});
    let check = async |config: &str, keys: Value, expected: (&str, &str)| {
        home.configure(&format!("{external}{config}"));
        assert_eq!(changed(&server).await, keys, "{config}");
        let (tier, said) = summary(&client.search(&near).await);
        assert_eq!((tier.as_str(), said.as_str()), expected, "{config}");
    };
    check("", json!([]), ("semantic", "r")).await;
    check("[cache]\nthreshold = 0.9999\n", json!(["cache.threshold"]), ("miss", "below_threshold")).await;
    check(
        "[caches.default]\nthreshold = 0.0\n",
        json!(["cache.threshold", "caches.default.threshold"]),
        ("semantic", "r"),
    )
    .await;
    // The cache has learned by now, and is held to the new budget all the same.
    let budget = "[cache]\nmax_error = 0.0\nmax_error_per_hit = 0.0\n";
    let keys = json!(["cache.max_error", "cache.max_error_per_hit", "caches.default.threshold"]);
    check(budget, keys, ("miss", "low_probability")).await;
    assert_eq!(client.stats("default").await["budget"]["maxError"], 0.0);
    let keys = json!(["cache.max_error", "cache.max_error_per_hit", "cache.shadow"]);
    check("[cache]\nshadow = true\n", keys, ("shadow", "audit")).await;
    check("", json!(["cache.shadow"]), ("semantic", "r")).await;
}

#[tokio::test]
async fn limits_and_breakers_of_what_is_as_before_are_kept() {
    let [ill, well] = [Upstream::saying("").await, Upstream::saying("well").await];
    ill.answer_with(|_| Reply::new(500, "text/plain", ""));
    let config = |ill: &str, more: &str| {
        format!(
            "[upstream]\nopenai = {:?}\nbreaker_failures = 1\nbreaker_pause_s = 3600\nqueue_wait_s = 0.001\n\
             [[upstreams]]\nname = \"ill\"\nurl = {ill:?}\nmodels = [\"ill\"]\nfallback = [\"openai\"]\n\
             [[upstreams]]\nname = \"slow\"\nurl = {:?}\nmodels = [\"slow\"]\nrequests_per_minute = 6\n\
             [limits]\nrequests_per_second = 0.001\nburst = 5\n{more}",
            well.base(),
            well.base(),
        )
    };
    let home = Home::with_config(&config(&ill.base(), ""));
    let server = home.serve(&[]).await;
    let client = server.client("sk-test");
    let failing = async || server.admin().get("/readyz").await.json()["failingUpstreams"].clone();
    let with_model = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Who?"}]});
    let bypass = client.with("cache-control", "no-store");
    bypass.chat(&with_model("ill")).await.check(200);
    bypass.chat(&with_model("slow")).await.check(200);
    assert_eq!(failing().await, json!(["ill"]));

    home.configure(&config(&ill.base(), "[aliases]\nquick = \"m\"\n[tenants.other]\nin_flight = 9\n"));
    let keys = ["aliases.quick", "tenants.other.in_flight"];
    let all = changed(&server).await;
    assert!(keys.iter().all(|key| all.as_array().expect("keys").contains(&json!(key))), "{all}");
    assert_eq!(failing().await, json!(["ill"]), "it is left alone as before");
    bypass.chat(&with_model("ill")).await.check(200);
    assert_eq!(ill.count(), 1);
    // The provider's minute is as full as it was.
    bypass.chat(&with_model("slow")).await.check(429);
    // Of five, four are spent; the first of the next two is the last.
    bypass.chat(&ask("Who?")).await.check(200);
    bypass.chat(&ask("Who?")).await.refusal(429, "rate_limit_exceeded");

    // Another place is another provider, and what is gone is not counted.
    home.configure(&config(&well.base(), ""));
    changed(&server).await;
    assert_eq!(failing().await, json!([]));
    home.configure(&format!("[upstream]\nopenai = {:?}\n", well.base()));
    changed(&server).await;
    let metrics = server.admin().get("/metrics").await.check(200).text();
    assert!(!metrics.contains("nearhit_upstream_open{upstream=\"ill\"}"), "{metrics}");
    // Without a limit nobody waits for one.
    bypass.chat(&ask("Who?")).await.check(200);
}

#[tokio::test]
async fn a_provider_key_that_was_replaced_in_its_file_is_taken_up() {
    let upstream = Upstream::saying("Hello.").await;
    let home = Home::new();
    let file = home.write("own.key", "sk-first");
    let section =
        format!("[[upstreams]]\nname = \"own\"\nurl = {:?}\nmodels = [\"*\"]\nkey_file = {file:?}\n", upstream.base());
    home.configure(&section);
    let server = home.serve(&[]).await;
    let client = server.client("sk-test").with("cache-control", "no-store");
    client.chat(&ask("Who?")).await.check(200);
    assert_eq!(upstream.last().header("authorization"), "Bearer sk-first");
    home.write("own.key", "sk-second");
    let changed = changed(&server).await;
    assert_eq!(changed, json!(["the key of upstream \"own\""]));
    client.chat(&ask("Who?")).await.check(200);
    assert_eq!(upstream.last().header("authorization"), "Bearer sk-second");
    assert!(!server.log().contains("sk-second"));
}
