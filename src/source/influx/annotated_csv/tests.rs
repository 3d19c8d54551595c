use super::*;

/// The rows as JSON-like text, and how reading ended.
fn rows(answer: &[u8]) -> (Vec<String>, Result<(), CsvError>) {
    let mut rows = Vec::new();
    let ended = read(answer, |columns, cells| {
        let cells = columns.iter().zip(cells).map(|(column, cell)| {
            let group = if column.in_group { "*" } else { "" };
            match cell {
                Cell::Null => format!("{group}{}=null", column.name),
                Cell::Text(text) => format!("{group}{}='{text}'", column.name),
                Cell::Json(text) => format!("{group}{}={text}", column.name),
            }
        });
        rows.push(cells.collect::<Vec<_>>().join(" "));
        Ok::<(), CsvError>(())
    });
    (rows, ended)
}

const HEAD: &str = "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,double,string\r\n\
                    #group,false,false,true,false,false,true\r\n\
                    #default,_result,,,,,\r\n\
                    ,result,table,_start,_time,_value,id\r\n";

#[test]
fn a_table_s_rows_have_types_and_know_their_group_key() {
    let answer = format!(
        "{HEAD},,0,2020-01-01T00:00:00Z,2025-12-22T10:40:00Z,1.5,a\r\n,,0,2020-01-01T00:00:00Z,2025-12-22T10:40:01Z,,b\r\n\r\n"
    );
    let (rows, ended) = rows(answer.as_bytes());
    ended.unwrap();
    assert_eq!(
        rows,
        [
            "_time='2025-12-22T10:40:00Z' _value=1.5 *id='a'",
            "_time='2025-12-22T10:40:01Z' _value=null *id='b'"
        ]
    );
}

#[test]
fn tables_follow_each_other_with_columns_of_their_own() {
    let second = "#datatype,string,long,boolean,unsignedLong,duration\r\n#group,false,false,false,false,false\r\n\
                  #default,_result,,,7,\r\n,result,table,on,n,d\r\n,,1,true,,1h\r\n";
    let answer = format!("{HEAD},,0,,2025-12-22T10:40:00Z,1,a\r\n\r\n{second}");
    let (rows, ended) = rows(answer.as_bytes());
    ended.unwrap();
    assert_eq!(rows, ["_time='2025-12-22T10:40:00Z' _value=1 *id='a'", "on=true n=7 d='1h'"]);
    assert!(self::rows(b"").1.is_ok() && self::rows(b"\r\n").1.is_ok(), "no rows are no error");
}

#[test]
fn an_error_in_the_middle_of_an_answer_is_an_error() {
    for error in [
        "#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,it failed,897\r\n",
        "error,reference\r\nit failed,897\r\n",
    ] {
        let (rows, ended) = rows(format!("{HEAD},,0,,2025-12-22T10:40:00Z,1,a\r\n\r\n{error}").as_bytes());
        assert_eq!(rows.len(), 1, "the rows before it were read");
        assert!(matches!(ended, Err(CsvError::Query(reason)) if reason == "it failed"), "{error}");
    }
}

#[test]
fn hostile_values_are_values() {
    let value = "a \"\"quoted\"\", line\n#datatype,string\nerror,reference \u{1b}[31m \u{202e}";
    let answer =
        format!("{HEAD},,0,,2025-12-22T10:40:00Z,1,\"{value}\"\r\n,,0,,2025-12-22T10:40:01Z,1,#x\r\n");
    let (rows, ended) = rows(answer.as_bytes());
    ended.unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0].ends_with(&format!("'{}'", value.replace("\"\"", "\""))), "{rows:?}");
    let mut bytes = format!("{HEAD},,0,,2025-12-22T10:40:00Z,1,").into_bytes();
    bytes.extend_from_slice(b"\xff\xfe\r\n");
    let (rows, ended) = self::rows(&bytes);
    ended.unwrap();
    assert!(rows[0].ends_with("id='\u{fffd}\u{fffd}'"), "{rows:?}");
}

#[test]
fn numbers_that_json_has_not_are_null_and_all_others_keep_their_digits() {
    for (raw, shown) in [
        ("1", "1"),
        ("-0", "-0"),
        ("18446744073709551615", "18446744073709551615"),
        ("1e+06", "1e+06"),
        ("0.1", "0.1"),
        (".5", "0.5"),
        ("+1", "1"),
        ("01", "1"),
        ("NaN", "null"),
        ("+Inf", "null"),
        ("-Inf", "null"),
        ("1e999", "1e999"),
        ("0x10", "null"),
    ] {
        let (rows, ended) = rows(format!("{HEAD},,0,,2025-12-22T10:40:00Z,{raw},a\r\n").as_bytes());
        ended.unwrap();
        assert_eq!(rows, [format!("_time='2025-12-22T10:40:00Z' _value={shown} *id='a'")]);
    }
}

#[test]
fn what_is_no_annotated_csv_or_ends_too_soon_is_an_error() {
    let broken = |answer: &str| rows(answer.as_bytes()).1.unwrap_err();
    assert!(matches!(broken("<html><body>login</body></html>\n"), CsvError::Malformed(_)));
    assert!(matches!(broken(",result,table,_time\n,,0,x\n"), CsvError::Malformed(_)));
    assert!(matches!(broken(&format!("{HEAD},,0,2025")), CsvError::Malformed(_)));
    assert!(matches!(broken("#datatype,string,long\r\n"), CsvError::Broken(_)));
    assert!(matches!(broken("#datatype,string,long\r\n,result,table,_time\r\n"), CsvError::Malformed(_)));
}
