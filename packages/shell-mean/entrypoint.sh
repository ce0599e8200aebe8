#!/usr/bin/env bash
# The means of the columns of a table that is spread over clients, with nothing but bash, awk, od, tail, tr and printf.
#
#   entrypoint.sh build    OUT_MODEL [--columns=3]    a model of zeros
#   entrypoint.sh train    IN_MODEL OUT_MODEL         the means of this client's rows
#   entrypoint.sh validate IN_MODEL OUT_JSON          how far the means are from this client's rows
#
# The model is one float64 vector, `mean`, in a safetensors file: the length of the header (8 bytes, little-endian), the header
# (JSON), the numbers (little-endian). $FEDN_DATA_PATH is a CSV file with a header line, or a folder with data.csv in it.
set -euo pipefail
export LC_ALL=C # a decimal point is a point

fail() {
    echo "shell-mean: $*" >&2
    exit 1
}

# Unsigned 64-bit number -> eight little-endian bytes.
write_u64() {
    local number=$1 i
    for ((i = 0; i < 8; i++)); do
        printf "\\x$(printf %02x $((number >> 8 * i & 255)))"
    done
}

# Decimal numbers, one a line -> float64 in little-endian bytes. Exact: awk's own numbers are float64.
write_f64() {
    local escapes
    escapes=$(awk '{
        x = $1 + 0; sign = 0; exponent = 1023
        if ($1 ~ /[^-+.0-9e]/) { print "shell-mean: not finite: " $1 >"/dev/stderr"; exit 1 }
        if (x < 0) { sign = 128; x = -x }
        if (x < 2.2250738585072014e-308) { x = 0; exponent = 0 }  # zero; subnormal numbers become zero
        else {
            while (x >= 2) { x /= 2; exponent++ }
            while (x < 1) { x *= 2; exponent-- }
            x = (x - 1) * 4503599627370496  # the 52 bits behind the leading one
        }
        for (i = 0; i < 6; i++) { high = int(x / 256); printf "\\0%03o", x - high * 256; x = high }
        printf "\\0%03o\\0%03o", x + (exponent % 16) * 16, sign + int(exponent / 16)
    }')
    printf '%b' "$escapes"
}

# Decimal numbers on stdin -> a model file.
write_model() {
    local values count header
    values=$(cat)
    count=$(awk 'NF { n++ } END { print n + 0 }' <<<"$values")
    header="{\"mean\":{\"dtype\":\"F64\",\"shape\":[$count],\"data_offsets\":[0,$((count * 8))]}}"
    while ((${#header} % 8)); do header+=' '; done # the numbers start at a multiple of eight
    {
        write_u64 ${#header}
        printf %s "$header"
        write_f64 <<<"$values"
    } >"$1"
}

# A model file -> its numbers, one a line.
read_model() {
    local header_bytes
    header_bytes=$(od -A n -t u8 -N 8 "$1" | tr -d ' ')
    tail -c +$((9 + header_bytes)) "$1" | od -A n -v -t f8 | awk '{ for (i = 1; i <= NF; i++) print $i }'
}

data_file() {
    local data=${FEDN_DATA_PATH:-}
    [[ -n $data ]] || fail "FEDN_DATA_PATH is not set: it should name this client's CSV file"
    if [[ -d $data ]]; then data+=/data.csv; fi
    [[ -f $data ]] || fail "no file $data"
    printf %s "$data"
}

# read_rows MODEL ACTION: run the awk program ACTION at the end, with rows, columns, mean[], sum[] and sum_of_squares[].
# Columns that do not fit the model, and cells that are no numbers, stop it.
read_rows() {
    local data
    data=$(data_file)
    read_model "$1" | awk -F, '
        function stop(text) { printf "shell-mean: %s, line %d: %s\n", FILENAME, FNR, text >"/dev/stderr"; failed = 1; exit 1 }
        what == "model" { mean[++columns] = $1 + 0; next }
        { sub(/\r$/, "") }
        $0 == "" { next }
        NF != columns { stop(NF " columns, the model has " columns) }
        FNR == 1 { next }
        {
            rows++
            for (i = 1; i <= columns; i++) {
                if ($i !~ /^ *[-+]?[0-9.]+([eE][-+]?[0-9]+)? *$/) stop("not a number: " $i)
                sum[i] += $i
                sum_of_squares[i] += ($i - mean[i]) ^ 2
            }
        }
        END {
            if (failed) exit 1
            if (!rows) stop("no rows")
            '"$2"'
        }' what=model - what=data "$data"
}

build() {
    local columns=3
    [[ ${2:-} != --columns=* ]] || columns=${2#--columns=}
    awk -v columns="$columns" 'BEGIN { for (i = 0; i < columns; i++) print 0 }' | write_model "$1"
}

train() {
    read_rows "$1" 'for (i = 1; i <= columns; i++) printf "%.17g\n", sum[i] / rows' | write_model "$2"
    read_rows "$1" 'printf "{\"num_examples\": %d}\n", rows' >"$2-metadata"
}

validate() {
    read_rows "$1" '
        for (i = 1; i <= columns; i++) total += sum_of_squares[i]
        printf "{\"squared_error\": %.17g, \"num_examples\": %d}\n", total / rows, rows' >"$2"
}

case ${1:-} in
    build | train | validate) "$@" ;;
    *) fail "usage: entrypoint.sh build|train|validate PATH [PATH]" ;;
esac
