//! A strict reader of the OpenMetrics text format, written from its specification: what it takes, every scraper takes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// One page.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
struct Family {
    kind: Option<Kind>,
    has_help: bool,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

impl Exposition {
    /// Reads a whole page; fails on whatever the format does not allow.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text
            .strip_suffix("# EOF\n")
            .context("the page must end with # EOF and a line feed")?;
        let mut page = Self::default();
        let mut current = String::new();
        for line in body.split_terminator('\n') {
            page.line(line, &mut current)
                .with_context(|| format!("in line {line:?}"))?;
        }
        for (name, family) in &page.families {
            family.check().with_context(|| format!("family {name}"))?;
        }
        Ok(page)
    }

    fn line(&mut self, line: &str, current: &mut String) -> Result<()> {
        if let Some(rest) = line.strip_prefix("# ") {
            let (keyword, rest) = rest.split_once(' ').context("a keyword alone")?;
            let (name, rest) = rest.split_once(' ').context("a name alone")?;
            if name != current {
                ensure!(is_name(name), "{name:?} is no name");
                ensure!(!self.families.contains_key(name), "{name} is in two places");
                self.families.insert(name.to_owned(), Family::default());
                *current = name.to_owned();
            }
            return self.family(name)?.describe(keyword, rest);
        }
        let sample = Sample::parse(line)?;
        let family = self.family(current)?;
        let kind = family.kind.context("samples before their type")?;
        let suffix = sample
            .name
            .strip_prefix(current.as_str())
            .context("a sample of another family")?;
        ensure!(
            kind.suffixes().contains(&suffix),
            "{suffix:?} is not for this type"
        );
        family.samples.push(sample);
        Ok(())
    }

    fn family(&mut self, name: &str) -> Result<&mut Family> {
        self.families.get_mut(name).context("no family yet")
    }

    /// Value of the one series of this name that has at least these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let found: Vec<_> = self.of(name, labels).collect();
        match found.as_slice() {
            [sample] => Ok(sample.value),
            [] => bail!("there is no {name} with {labels:?}"),
            _ => bail!("{name} with {labels:?} is not one series"),
        }
    }

    /// Labels of every series of this name.
    pub fn series(&self, name: &str) -> Vec<&Labels> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        let named = samples.filter(|sample| sample.name == name);
        named.map(|sample| &sample.labels).collect()
    }

    fn of<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples.filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value))
        })
    }
}

impl Family {
    fn describe(&mut self, keyword: &str, rest: &str) -> Result<()> {
        ensure!(self.samples.is_empty(), "told after its samples");
        match keyword {
            "HELP" => {
                ensure!(!self.has_help, "told twice");
                ensure!(!rest.is_empty(), "no help at all");
                self.has_help = true;
            }
            "TYPE" => {
                ensure!(self.kind.is_none(), "told twice");
                self.kind = Some(match rest {
                    "counter" => Kind::Counter,
                    "gauge" => Kind::Gauge,
                    "histogram" => Kind::Histogram,
                    other => bail!("type {other:?} is not one of ours"),
                });
            }
            other => bail!("{other:?} is no keyword of ours"),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let kind = self.kind.context("no type")?;
        ensure!(self.has_help, "no help");
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            ensure!(
                seen.insert((&sample.name, &sample.labels)),
                "{} {:?} twice",
                sample.name,
                sample.labels
            );
            ensure!(
                kind == Kind::Gauge || (sample.value.is_finite() && sample.value >= 0.0),
                "{} counts {}",
                sample.name,
                sample.value
            );
        }
        if kind == Kind::Histogram {
            self.check_histogram()?;
        }
        Ok(())
    }

    /// Of the histograms there are, none has labels of its own.
    fn check_histogram(&self) -> Result<()> {
        let one = |suffix: &str| {
            self.samples
                .iter()
                .find(|sample| sample.name.ends_with(suffix))
                .with_context(|| format!("no {suffix}"))
        };
        let (count, _) = (one("_count")?.value, one("_sum")?);
        let (mut bound, mut below) = (f64::NEG_INFINITY, 0.0);
        for bucket in &self.samples {
            let Some(le) = bucket.labels.get("le") else {
                continue;
            };
            let le = number(le)?;
            ensure!(le > bound, "buckets out of order");
            ensure!(bucket.value >= below, "buckets do not add up");
            (bound, below) = (le, bucket.value);
        }
        ensure!(bound == f64::INFINITY, "no bucket for the rest");
        ensure!(below == count, "{below} in buckets, {count} in all");
        Ok(())
    }
}

impl Kind {
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_count", "_sum"],
        }
    }
}

impl Sample {
    fn parse(line: &str) -> Result<Self> {
        let end = line.find(['{', ' ']).context("no value")?;
        let (name, rest) = line.split_at(end);
        ensure!(is_name(name), "{name:?} is no name");
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Labels::new(), rest),
        };
        let value = rest
            .strip_prefix(' ')
            .context("no space before the value")?;
        Ok(Self {
            name: name.to_owned(),
            labels,
            value: number(value)?,
        })
    }
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Result<(Labels, &str)> {
    let mut labels = Labels::new();
    if let Some(rest) = rest.strip_prefix('}') {
        return Ok((labels, rest));
    }
    loop {
        let (name, after) = rest.split_once("=\"").context("no value of a label")?;
        ensure!(
            is_name(name) && !name.contains(':'),
            "{name:?} is no label's name"
        );
        let (value, after) = quoted(after)?;
        ensure!(
            labels.insert(name.to_owned(), value).is_none(),
            "label {name} twice"
        );
        if let Some(after) = after.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = after.strip_prefix(',').context("no comma between labels")?;
    }
}

/// A value up to its closing quote, and what follows that.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, plain @ ('\\' | '"'))) => plain,
                other => bail!("escaped {other:?}"),
            }),
            plain => value.push(plain),
        }
    }
    bail!("no closing quote")
}

fn number(text: &str) -> Result<f64> {
    let allowed = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    match text {
        "+Inf" => Ok(f64::INFINITY),
        _ => {
            ensure!(
                !text.is_empty() && text.chars().all(allowed),
                "{text:?} is no number"
            );
            text.parse()
                .with_context(|| format!("{text:?} is no number"))
        }
    }
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP x_packets Packets.\n# TYPE x_packets counter\n\
        x_packets_total{reason=\"locked\",user=\"a\\\"} 1\\n\"} 7\nx_packets_total{reason=\"idle\",user=\"\"} 0\n\
        # HELP x_up Up.\n# TYPE x_up gauge\nx_up -1.5\n\
        # HELP x_s S.\n# TYPE x_s histogram\nx_s_sum 0.5\nx_s_count 2\nx_s_bucket{le=\"1.0\"} 1\n\
        x_s_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn a_good_page_is_read() {
        let page = Exposition::parse(GOOD).unwrap();
        let value = page.value("x_packets_total", &[("reason", "locked")]);
        assert_eq!(value.unwrap(), 7.0);
        let users = page.series("x_packets_total");
        assert_eq!(users[0]["user"], "a\"} 1\n");
        assert_eq!(users[1]["user"], "");
        assert_eq!(page.value("x_up", &[]).unwrap(), -1.5);
        assert!(page.value("x_packets_total", &[]).is_err(), "two series");
        assert!(page.value("x_down", &[]).is_err());
    }

    #[test]
    fn a_bad_page_is_refused() {
        for (good, bad) in [
            ("# EOF\n", ""),
            ("# EOF\n", "# EOF\n\n"),
            ("x_up -1.5", "x_up"),
            ("x_up -1.5", "x_up  -1.5"),
            ("x_up -1.5", "x_up -1.5 # now"),
            ("x_up -1.5", "x_up NaN?"),
            ("x_up -1.5", "\nx_up -1.5"),
            ("x_up -1.5", "x_up 1\nx_up 2"),
            ("x_up -1.5", "x_up_total 1"),
            ("x_up -1.5", "1x 1"),
            ("locked\"", "lo\"cked\""),
            ("locked\"", "lo\\cked\""),
            ("locked\"", "locked"),
            ("locked\",user", "locked\" user"),
            ("locked\",user", "locked\",reason"),
            ("reason=\"idle\"", "reason=idle"),
            ("} 0\n", "} -1\n"),
            (
                "x_packets_total{reason=\"idle\"",
                "x_packets{reason=\"idle\"",
            ),
            ("# TYPE x_up gauge\n", ""),
            (
                "# TYPE x_up gauge\n",
                "# TYPE x_up gauge\n# TYPE x_up gauge\n",
            ),
            ("# TYPE x_up gauge\n", "# TYPE x_up gauges\n"),
            ("# HELP x_up Up.\n", ""),
            ("# HELP x_s S.", "# HELP x_packets S."),
            ("le=\"+Inf\"} 2", "le=\"+Inf\"} 3"),
            ("le=\"+Inf\"", "le=\"2.0\""),
            ("x_s_sum 0.5\n", ""),
        ] {
            assert!(GOOD.contains(good), "{good:?}");
            let page = GOOD.replacen(good, bad, 1);
            assert!(Exposition::parse(&page).is_err(), "{bad:?} in {page}");
        }
    }
}
