#!/bin/sh
# Answers one HTTP request with 204, and prints its headers webhook-id and webhook-signature and its body in one line. It
# runs under busybox in the image of the receiver, for each connection.
length=0
while read -r line; do
    line=$(printf %s "$line" | busybox tr -d '\r')
    [ -n "$line" ] || break
    case $(printf %s "$line" | busybox tr A-Z a-z) in
        content-length:*) length=${line##*: } ;;
        webhook-id:* | webhook-signature:*) printf '%s ' "$line" >/proc/1/fd/1 ;;
    esac
done
busybox head -c "$length" >/proc/1/fd/1
echo >/proc/1/fd/1
printf 'HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n'
