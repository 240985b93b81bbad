//! Nested prefixes told as briefly as possible: a narrower one only where it differs.

use ipnet::IpNet;

/// What holds at a prefix, except within `except`.
pub(super) struct Entry<T> {
    pub(super) net: IpNet,
    pub(super) except: Vec<IpNet>,
    pub(super) value: T,
}

/// Leaves out every prefix at which the same holds as around it. The input is sorted so that what
/// covers a prefix comes before it.
pub(super) fn outline<T: PartialEq>(nested: impl IntoIterator<Item = (IpNet, T)>) -> Vec<Entry<T>> {
    let mut entries: Vec<Entry<T>> = Vec::new();
    let mut path: Vec<usize> = Vec::new();
    for (net, value) in nested {
        while path
            .last()
            .is_some_and(|around| !entries[*around].net.contains(&net))
        {
            path.pop();
        }
        if let Some(&around) = path.last() {
            if entries[around].value == value {
                continue;
            }
            entries[around].except.push(net);
        }
        path.push(entries.len());
        entries.push(Entry {
            net,
            except: Vec::new(),
            value,
        });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let nested = [
            ("10.0.0.0/8", 1),
            ("10.1.0.0/16", 1),
            ("10.1.1.0/24", 2),
            ("10.1.1.1/32", 1),
            ("11.0.0.0/8", 1),
        ];
        let told: Vec<(String, Vec<String>, i32)> =
            outline(nested.map(|(net, value)| (net.parse().unwrap(), value)))
                .into_iter()
                .map(|entry| {
                    (
                        entry.net.to_string(),
                        entry.except.iter().map(IpNet::to_string).collect(),
                        entry.value,
                    )
                })
                .collect();
        let strings = |nets: &[&str]| nets.iter().map(|net| (*net).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                ("10.0.0.0/8".to_owned(), strings(&["10.1.1.0/24"]), 1),
                ("10.1.1.0/24".to_owned(), strings(&["10.1.1.1/32"]), 2),
                ("10.1.1.1/32".to_owned(), strings(&[]), 1),
                ("11.0.0.0/8".to_owned(), strings(&[]), 1),
            ]
        );
    }
}
