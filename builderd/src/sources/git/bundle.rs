//! Commits as one file, which `git` reads like a repository: what a build takes away, and another one may begin with.

use super::fetch::Fetched;
use super::remote::Resolved;
use super::{GitError, Request};
use crate::store::{Content, LayerId, NewLayer, Snapshot};

/// The file in the layer.
const NAME: &str = "bundle";
/// What a commit is called in a bundle if it was asked for by its own name: something has to name it.
const BRANCH: &str = "refs/heads/main";

/// A layer with a bundle of what was fetched and everything it comes from. Submodules stay out.
pub(super) async fn make(
    request: &Request,
    fetched: &Fetched<'_>,
    resolved: &Resolved,
) -> Result<Snapshot, GitError> {
    let source = &request.source;
    let draft = request.store.draft()?;
    let scratch = draft.work();
    let (folder, file) = (scratch.join("repository"), scratch.join(NAME));
    std::fs::create_dir(&folder).map_err(GitError::Keep)?;
    let doing = || format!("failed to make a bundle of {}", fetched.shown());
    let hash = if resolved.object.len() == 64 {
        "sha256"
    } else {
        "sha1"
    };
    let here = || request.git.call().in_repository(&folder);
    let init = ["init", "--quiet", "--bare", "--template="].map(str::to_owned);
    let init = here()
        .arguments(init)
        .arguments([format!("--object-format={hash}")]);
    init.succeed(doing).await?;
    let name = match resolved.reference.as_str() {
        full if full.starts_with("refs/") => full,
        _ => BRANCH,
    };
    let fetch = ["fetch", "--quiet", "--no-tags", "--"];
    if fetched.folder().join("shallow").exists() {
        // What is here lacks where it comes from, and whoever reads the bundle could not do without.
        let wanted = format!("+{}:{name}", resolved.object);
        let call = || request.call(&source.url.remote).in_repository(&folder);
        let by_name = call().arguments(fetch).arguments(["origin", &wanted]);
        if by_name.run().await?.succeeded() {
            tracing::debug!(remote = %fetched.shown(), "fetched all of it for a bundle");
        } else {
            let all = ["+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*"];
            let all = call().arguments(fetch).arguments(["origin"]).arguments(all);
            all.succeed(doing).await?;
        }
    } else {
        let wanted = format!("+{}:{name}", fetched.reference());
        let call = here()
            .environment("GIT_ALLOW_PROTOCOL", "file")
            .configured("remote.here.url", fetched.folder().to_string_lossy());
        let call = call.arguments(fetch).arguments(["here", &wanted]);
        call.succeed(doing).await?;
    }
    let update = here().arguments(["update-ref", name, resolved.object.as_str()]);
    update.succeed(doing).await?;
    // With one thread, the same commits come to the same bytes.
    let create = here()
        .configured("pack.threads", "1")
        .arguments(["bundle", "create", "--quiet"]);
    let create = create.arguments([file.as_os_str(), name.as_ref()]);
    create.succeed(doing).await?;
    let key = source.cache_key(resolved);
    let description = format!("git bundle of {}#{}", source.shown(), source.reference);
    let store = request.store.clone();
    let pool = store.pool().clone();
    let publish = move || {
        std::fs::rename(&file, draft.upper().join(NAME)).map_err(GitError::Keep)?;
        let layer = LayerId::new(format!("git-{key}"));
        let new = NewLayer {
            description,
            content: Content::Git,
            ..NewLayer::default()
        };
        store.commit_as(draft, &layer, new)?;
        Ok::<_, GitError>(Snapshot::new([layer]))
    };
    pool.run(publish).await?
}
