//! Registries that want tokens: the client buys them, and keeps the password to itself.

use base64::Engine as _;
use registry::testing::{Access, FakeRegistry};
use tests::needs::{Need, given};
use tests::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_client_buys_the_tokens_of_a_build() {
    if !given(&[Need::Root, Need::Registry, Need::BusyBox]) {
        return;
    }
    let registry = FakeRegistry::start().await.unwrap();
    registry.set_access(Access::Token {
        username: "me".to_owned(),
        password: "right".to_owned(),
        identity: None,
        uses: 1000,
    });
    let host = registry.host();
    let repository = registry.repository("app");
    tokio::task::spawn_blocking(move || {
        let world = World::new();
        let home = world.folder().join("home/.docker");
        let log_in = |password: &str| {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
            std::fs::create_dir_all(&home).unwrap();
            let config = format!(r#"{{"auths":{{"{host}":{{"auth":"{pair}"}}}}}}"#);
            std::fs::write(home.join("config.json"), config).unwrap();
        };
        let context = world.context("context", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
        let image = format!("{host}/app:1");
        let push = || world.build(&context, &["-t", &image, "--push"]);
        log_in("wrong");
        let refused = push().failed();
        assert!(!format!("{refused}").contains("wrong"), "{refused}");
        log_in("right");
        push().succeeded();
        // What the client signs with; it is made when a daemon first asks for tokens.
        assert!(home.join("trimaran/.token_seed").is_file());
    })
    .await
    .unwrap();
    assert_eq!(registry.tags(&repository), ["1"]);
    assert!(registry.take_log().iter().any(|line| line.contains("/token")));
}
