# What the database begins with: postgres would run this file, too, from the same place.
echo "hello from the database $DB_NAME, to $DB_ROLE_NAME" > /data/rows
