//! Reads a node's admin port: plain HTTP GET, and the Prometheus text format (version 0.0.4).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Status and body of `path` at `admin`.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer: io::Result<String> =
        timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    let answer = answer?;
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok());
    let (Some(status), Some((_, body))) = (status, answer.split_once("\r\n\r\n")) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    Ok((status, body.to_owned()))
}

/// The samples of one scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Scrapes a node; empty if it does not answer, which a live display must survive.
    pub(crate) async fn scrape(admin: SocketAddr) -> Self {
        match get(admin, "/metrics").await {
            Ok((200, text)) => Self::parse(&text),
            Ok(_) | Err(_) => Self::default(),
        }
    }

    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum over all series of `name` whose labels contain `label` (may be empty).
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        self.series(name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    /// The `q` quantile of the histogram `name`, seconds, interpolated within its bucket.
    pub(crate) fn quantile(&self, name: &str, q: f64) -> Option<f64> {
        quantile_of(&self.buckets(name, ""), q)
    }

    /// Upper bounds and cumulative counts of the histogram `name`, over all series whose labels contain `label`.
    pub(crate) fn buckets(&self, name: &str, label: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, count) in self.series(&format!("{name}_bucket")).filter(|(own, _)| own.contains(label)) {
            let bound = labels.split("le=\"").nth(1).and_then(|text| text.split('"').next());
            let Some(bound) = bound.and_then(|bound| bound.replace("+Inf", "inf").parse().ok()) else {
                continue;
            };
            match buckets.iter_mut().find(|bucket| bucket.0.total_cmp(&bound).is_eq()) {
                Some(bucket) => bucket.1 += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
        buckets
    }

    /// Labels and value of each series of `name`.
    fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }
}

/// The `q` quantile of buckets as [`Metrics::buckets`] gives them, interpolated within one.
pub(crate) fn quantile_of(buckets: &[(f64, f64)], q: f64) -> Option<f64> {
    let wanted = buckets.last().filter(|bucket| bucket.1 > 0.0)?.1 * q;
    let (mut low, mut below) = (0.0, 0.0);
    for &(bound, count) in buckets {
        if count >= wanted {
            let share = if count > below { (wanted - below) / (count - below) } else { 1.0 };
            return Some(if bound.is_finite() { low + (bound - low) * share } else { low });
        }
        (low, below) = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a histogram\n\
        a_bucket{le=\"0.001\"} 50\na_bucket{le=\"0.01\"} 90\na_bucket{le=\"+Inf\"} 100\na_count 100\n\
        d_total{outcome=\"delivered\",target=\"x\"} 3\nd_total{outcome=\"delivered\",target=\"y\"} 4\n\
        d_total{outcome=\"retry\"} 1\nd_total_other 9\n";

    #[test]
    fn sums_by_label() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("d_total", "outcome=\"delivered\"") as u64, 7);
        assert_eq!(metrics.sum("d_total", "") as u64, 8);
        assert_eq!(metrics.sum("absent", "") as u64, 0);
    }

    #[test]
    fn quantiles_interpolate() {
        let metrics = Metrics::parse(TEXT);
        let quantile = |q| (metrics.quantile("a", q).unwrap() * 1e6).round() as u64;
        assert_eq!([quantile(0.25), quantile(0.5), quantile(0.7), quantile(0.99)], [500, 1000, 5500, 10_000]);
        assert_eq!(metrics.quantile("absent", 0.5), None);
        let two = Metrics::parse(
            "b_bucket{le=\"8.0\",use=\"x\"} 3\nb_bucket{le=\"8.0\",use=\"y\"} 9\nb_bucket{le=\"+Inf\",use=\"x\"} 4\n",
        );
        assert_eq!(two.buckets("b", "use=\"x\""), [(8.0, 3.0), (f64::INFINITY, 4.0)]);
    }
}
