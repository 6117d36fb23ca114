//! Handlers that others registered, handlers of ours, and what each is worth.

use std::path::Path;

use binfmt::kernel::Flags;
use binfmt::{Emulators, Installed, Platform, Support, Verdict};

use crate::world::{World, with_kernel};

fn survey(world: &World) -> Support {
    only(world.emulators.survey(&[platform(world)]))
}

fn ensure(world: &World) -> Support {
    only(world.emulators.ensure(&[platform(world)]))
}

fn platform(world: &World) -> Platform {
    world.machine.platforms().next().unwrap()
}

fn only(supports: Vec<Support>) -> Support {
    let [support] = <[Support; 1]>::try_from(supports).unwrap();
    support
}

fn register(world: &World, name: &str, flags: Flags) {
    let interpreter = Path::new("/usr/bin/qemu-mips64-static");
    world
        .emulators
        .kernel()
        .register(name, world.machine, interpreter, flags)
        .unwrap();
}

/// The handler that runs the platform, and whether it keeps argv[0].
fn running(support: &Support) -> (String, bool) {
    match support.verdict() {
        Verdict::Emulated {
            handler: Some(handler),
            preserves_argv0,
        } => (handler.name.clone(), *preserves_argv0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_installed_emulator_runs_programs_under_their_own_name() {
    with_kernel(
        "kernel::an_installed_emulator_runs_programs_under_their_own_name",
        |world| {
            assert_eq!(
                survey(world).explanation().unwrap(),
                "linux/mips64 cannot run here: no emulator is registered for it; run `binfmt --install mips64` as root"
            );
            let handler = "qemu-mips64".to_owned();
            assert_eq!(
                world.emulators.install(world.machine).unwrap(),
                Installed::Registered {
                    handler: handler.clone()
                }
            );
            assert_eq!(
                world.emulators.install(world.machine).unwrap(),
                Installed::Unchanged {
                    handler: handler.clone()
                }
            );
            let support = survey(world);
            assert_eq!(running(&support), (handler.clone(), true));
            assert_eq!(support.warning(), None);
            let registered = world.emulators.kernel().handler(&handler).unwrap().unwrap();
            assert_eq!(registered.flags.to_string(), "POCF");
            assert_eq!(world.emulators.uninstall("mips64").unwrap(), [handler]);
            assert!(!survey(world).runs());
        },
    );
}

#[test]
fn a_weak_handler_is_reported_and_replaced_on_request() {
    with_kernel(
        "kernel::a_weak_handler_is_reported_and_replaced_on_request",
        |world| {
            register(world, "qemu-mips64", Flags::FIX_BINARY);
            let support = survey(world);
            assert_eq!(running(&support), ("qemu-mips64".to_owned(), false));
            let warning = support.warning().unwrap();
            assert!(
                warning.contains("registered by somebody else, flags F only: without P programs lose"),
                "{warning}"
            );
            assert_eq!(
                world.emulators.install(world.machine).unwrap(),
                Installed::Replaced {
                    handler: "qemu-mips64".to_owned()
                }
            );
            assert_eq!(survey(world).warning(), None);
        },
    );
}

#[test]
fn the_daemon_goes_beside_a_weak_handler_and_wins() {
    with_kernel(
        "kernel::the_daemon_goes_beside_a_weak_handler_and_wins",
        |world| {
            register(world, "qemu-mips64", Flags::FIX_BINARY);
            assert_eq!(running(&ensure(world)), ("trimaran-mips64".to_owned(), true));
            // A second time there is nothing to do.
            assert_eq!(running(&ensure(world)), ("trimaran-mips64".to_owned(), true));
            let weak = world.emulators.kernel().handler("qemu-mips64").unwrap().unwrap();
            assert_eq!(weak.flags, Flags::FIX_BINARY);
            assert_eq!(
                world.emulators.uninstall("mips64").unwrap(),
                ["qemu-mips64", "trimaran-mips64"]
            );
        },
    );
}

#[test]
fn a_platform_that_went_away_comes_back() {
    with_kernel("kernel::a_platform_that_went_away_comes_back", |world| {
        assert_eq!(running(&ensure(world)).0, "qemu-mips64");
        world.emulators.kernel().unregister("qemu-mips64").unwrap();
        assert!(!survey(world).runs());
        assert_eq!(running(&ensure(world)).0, "qemu-mips64");
    });
}

#[test]
fn a_disabled_handler_stays_disabled_until_somebody_asks() {
    with_kernel(
        "kernel::a_disabled_handler_stays_disabled_until_somebody_asks",
        |world| {
            world.emulators.install(world.machine).unwrap();
            std::fs::write(world.emulators.kernel().root().join("qemu-mips64"), "0").unwrap();
            assert_eq!(
                ensure(world).explanation().unwrap(),
                "linux/mips64 cannot run here: the handler qemu-mips64 is registered but disabled; \
             run `binfmt --install mips64` as root"
            );
            world.emulators.install(world.machine).unwrap();
            assert!(survey(world).runs());
        },
    );
}

#[test]
fn every_emulator_on_disk_proves_its_platforms() {
    with_kernel("kernel::every_emulator_on_disk_proves_its_platforms", |world| {
        if world.emulators.kernel().root() == Path::new(binfmt::kernel::DEFAULT_ROOT) {
            return; // Where handlers are the machine's, only one architecture is ours to change.
        }
        for support in world.emulators.ensure(&Emulators::known_platforms()) {
            assert!(support.runs(), "{}", support.explanation().unwrap());
            assert_eq!(support.warning(), None);
        }
        world.emulators.uninstall("qemu-*").unwrap();
        assert_eq!(world.emulators.kernel().handlers().unwrap(), []);
    });
}
