//! The order of paths: component by component, bytewise, so that a folder's content directly follows it.

use std::cmp::Ordering;

/// Compares as if `/` were lower than any other byte: `a`, `a/x`, `a-b`, `a.b`.
pub fn compare(left: &str, right: &str) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    left.as_bytes()
        .iter()
        .map(key)
        .cmp(right.as_bytes().iter().map(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_folders_content_directly_follows_it() {
        let ordered = ["a", "a/x", "a/x/y", "a/x.y", "a-b", "a.b", "a0", "b"];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_lists_of_components(left in "[a-c./-]{0,8}", right in "[a-c./-]{0,8}") {
            let components = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(compare(&left, &right), components(&left).cmp(&components(&right)));
        }
    }
}
